"""What every registered generator, method and family must have: a revision in its identity, a Spec of its own, docs."""

import dataclasses
import inspect
import re
from typing import Any

import pyarrow as pa
import pytest

from gristmill.generators.canned.generator import Canned, CannedSpec
from gristmill.generators.families.contract import KINDS as FAMILIES
from gristmill.generators.families.contract import family_class
from gristmill.generators.families.fit import Fit
from gristmill.generators.passthrough import Passthrough, PassthroughSpec
from gristmill.generators.registry import KINDS as GENERATORS
from gristmill.generators.registry import generator_class
from gristmill.generators.simulators.generator import KINDS as SIMULATORS
from gristmill.generators.tabular.independent import Independent, IndependentSpec
from gristmill.generators.text.registry import KINDS as METHODS
from gristmill.generators.text.registry import method_class
from gristmill.records.kinds import kind_class
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.stores.local import LocalStore

BUILT_IN: list[Any] = [
    *map(generator_class, GENERATORS),
    *map(method_class, METHODS),
    *map(family_class, FAMILIES),
]
WITH_SPEC = [*BUILT_IN, *(kind_class(SIMULATORS, kind, "simulator", object) for kind in SIMULATORS)]


@pytest.mark.parametrize("cls", BUILT_IN, ids=lambda cls: cls.__name__)
def test_every_kind_has_a_revision_of_its_own(cls: Any) -> None:
    assert isinstance(vars(cls).get("revision"), int) and cls.revision >= 1
    assert re.fullmatch(r"[a-z][a-z0-9_]*", cls.kind)


def test_the_revision_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    prompt = method_class("prompt")
    schema = TableSchema((Column("age", "integer", 0, 9),))
    rows = schema.conform(pa.table({"age": [1, 2]}))
    trained_on = {"path": "", "num_rows": 2, "digest": "0"}
    fit = Fit(Independent(IndependentSpec(), schema), rows, trained_on, LocalStore(tmp_path), 1)
    for cls, part in (
        (prompt, Canned(CannedSpec(), prompt(prompt.Spec()))),
        (Canned, Canned(CannedSpec(), prompt(prompt.Spec()))),
        (Passthrough, Passthrough(PassthroughSpec())),
        (Independent, fit),
    ):
        before = part.identity()
        with monkeypatch.context() as patch:
            patch.setattr(cls, "revision", 2)
            assert part.identity() != before
        assert part.identity() == before


def test_specs_have_names_of_their_own() -> None:
    names = [cls.Spec.__name__ for cls in WITH_SPEC]
    assert len(set(names)) == len(names) and "Spec" not in names


@pytest.mark.parametrize("spec", {cls.Spec: None for cls in WITH_SPEC}, ids=lambda spec: spec.__name__)
def test_every_key_is_described(spec: Any) -> None:
    """At the end of its line or in the line above, where generated tables of keys find it."""
    owners = {name: base for base in reversed(spec.__mro__) for name in vars(base).get("__annotations__", {})}
    for field in dataclasses.fields(spec):
        if not owners[field.name].__module__.startswith("gristmill.generators"):
            continue
        lines = inspect.getsource(owners[field.name]).splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith(f"    {field.name}:"))
        assert "  # " in lines[at] or lines[at - 1].startswith("    # "), field.name
