"""A missing optional package ends in one line that names the extra to install."""

import sys

import pyarrow as pa
import pytest

from gristmill.generators.families.contract import KINDS, family_class
from gristmill.generators.families.fit_check import check_fit
from gristmill.generators.private.account import PrivacySpec
from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed, require
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build

NUMBERS = TableSchema((Column("age", "integer", 0, 100), Column("sick", "category", categories=("no", "yes"))))
ROWS = NUMBERS.conform(pa.table({"age": list(range(40)), "sick": ["no", "yes"] * 20}))


class Blocker:
    """An import hook under which a package looks as if it was never installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch):
    def blocked(package: str) -> None:
        for name in [n for n in sys.modules if n.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Blocker(package), *sys.meta_path])

    return blocked


def test_a_missing_package_names_its_extra(block) -> None:
    assert require("jinja2", "tables").__name__ == "jinja2"
    check_installed("tables", "jinja2", "scipy")
    block("gymnasium")
    for ask in (lambda: require("gymnasium.spaces", "simulators"), lambda: check_installed("simulators", "gymnasium")):
        with pytest.raises(UserError) as missing:
            ask()
        assert str(missing.value) == (
            "package 'gymnasium' is missing; install it with pip install 'gristmill[simulators]'"
        )


@pytest.mark.parametrize(
    ("package", "extra", "kind", "privacy"),
    [
        ("torch", "tables", "dp_ctgan", None),
        ("sklearn", "tables", "tvae", None),
        ("scipy", "tables", "copula", None),
        ("dp_accounting", "private", "mst", PrivacySpec(1.0, 1e-4)),
        ("opacus", "private", "dp_tvae", PrivacySpec(1.0, 1e-4, engine="opacus")),
    ],
)
def test_a_fit_says_so_before_it_starts(
    block, package: str, extra: str, kind: str, privacy: PrivacySpec | None
) -> None:
    family_type = family_class(kind)
    family = family_type(build(family_type.Spec, {}, "model"), NUMBERS)
    check_fit(family, ROWS, privacy)
    block(package)
    with pytest.raises(UserError, match=rf"package '{package}' is missing; .* 'gristmill\[{extra}\]'"):
        check_fit(family, ROWS, privacy)


def test_every_family_with_optional_packages_names_their_extra() -> None:
    for kind in KINDS:
        family_type = family_class(kind)
        assert bool(family_type.packages) == (family_type.extra in {"tables", "images", "lm"}), kind
