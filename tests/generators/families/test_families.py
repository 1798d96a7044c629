"""The five laws of generators/families/contract.py, for every family on a small table of its own.

Families of images and of episodes are held to them in test_image_families.py and test_adr.py.
"""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.generators.families.contract import KINDS, Family, SampleBlock, draw_rows, family_class
from gristmill.generators.families.fit import Fit, FitProgress
from gristmill.generators.families.fit_check import check_fit
from gristmill.generators.families.folder import read_card
from gristmill.generators.private.account import PrivacySpec
from gristmill.generators.tabular.independent import Independent
from gristmill.records.errors import Conflict, UserError
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from gristmill.records.stores.opening import open_store
from gristmill.testing.families import check_family
from tests.generators.images.test_families import SPECS as IMAGES

Rows = tuple[TableSchema, pa.Table]


@functools.cache
def patients(num: int = 240) -> Rows:
    """Numbers with and without ties, missing values, a category that no row has, and one that goes with a number."""
    random = np.random.default_rng(0)
    age = random.integers(20, 80, num)
    height = np.where(random.random(num) < 0.1, np.nan, random.normal(170, 10, num).round(1))
    city = random.choice(["Aby", "Berg", "Ceel"], num, p=[0.6, 0.3, 0.1])
    sick = np.where(age + random.normal(0, 10, num) > 55, "yes", "no")
    schema = TableSchema(
        (
            Column("age", "integer", 0, 120),
            Column("height", "numeric", 50, 250, decimals=1, nullable=True),
            Column("city", "category", categories=("Aby", "Berg", "Ceel", "Dorf"), nullable=True),
            Column("sick", "category", categories=("no", "yes")),
        )
    )
    places = pa.array(city, mask=random.random(num) < 0.1)
    return schema, schema.conform(pa.table({"age": age, "height": height, "city": places, "sick": sick}))


@dataclass(frozen=True)
class Case:
    """One line a kind: a spec that is fitted in seconds, and rows that suit it."""

    kind: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    rows: Callable[[], Rows] = patients
    privacy: PrivacySpec | None = None

    @property
    def schema(self) -> TableSchema:
        return self.rows()[0]

    def family(self) -> Family:
        made: Any = family_class(self.kind)
        return made(build(made.Spec, self.spec, "model"), self.schema)

    def fit(self, folder: Path, table: pa.Table | None = None, seed: int = 1) -> Fit:
        family, rows = self.family(), table or self.rows()[1]
        trained_on = {"path": "test", "num_rows": rows.num_rows, "digest": "0"}
        return Fit(family, rows, trained_on, open_store(str(folder)), seed, self.privacy)


SMALL: dict[str, Any] = {"epochs": 4, "batch_size": 40}
CASES = [
    Case("copula"),
    Case("ctgan", {**SMALL, "pac": 4, "generator": [32], "critic": [32, 16], "noise": 8}),
    Case("dp_ctgan", {"steps": 8, "batch": 64, "widths": [16], "critic_widths": [16], "num_noise": 4}),
    Case("dp_tvae", {"steps": 8, "batch": 64, "widths": [16], "num_noise": 4}),
    Case("independent"),
    Case("mst"),
    Case(
        "pate_gan", {"steps": 6, "teachers": 8, "votes": 4, "batch": 32, "widths": [16], "num_noise": 4, "memory": 20}
    ),
    Case("smote", {"target": "sick"}),
    Case("tabddpm", {"target": "sick", "steps": 24, "batch_size": 64, "times": 8, "hidden": [32, 32]}),
    Case("tvae", {**SMALL, "hidden": [32], "latent": 8}),
]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda c: c.kind)


@functools.cache
def fitted(case_number: int) -> tuple[Family, Path]:
    """A family just fitted and the folder that it was saved to."""
    import tempfile

    case, folder = CASES[case_number], Path(tempfile.mkdtemp(prefix="gristmill-test-"))
    fit = case.fit(folder)
    fit.run()
    return fit.family, folder


def fit_of(case: Case) -> tuple[Family, Path]:
    return fitted(CASES.index(case))


def test_every_kind_has_a_case() -> None:
    others = {kind for kind, _ in IMAGES.values()} | {
        "adr",
        "classifier",
        "causal_lm",
        "quality",
    }  # in their own files, with their own rows
    assert {c.kind for c in CASES} | others == set(KINDS)


@EACH
def test_the_five_laws(case: Case) -> None:
    check_family(case.family, case.rows()[1], case.privacy)


@EACH
def test_rows_have_declared_decimals_and_differ(case: Case) -> None:
    family, _ = fit_of(case)
    made = draw_rows(family, np.arange(family.block) + 2**62)
    if "height" in made.column_names:
        height = made.column("height").drop_null().to_numpy()
        assert np.isfinite(height).all() and np.array_equal(height.round(1), height)
        if not case.family().is_private:  # those may know no more than the public schema
            assert "Dorf" not in made.column("city").to_pylist(), "a category that no row had is not made up"
    assert len({str(row) for row in made.to_pylist()}) > family.block / 4, "rows differ"


@EACH
def test_the_statement_says_whether_the_rows_are_inside(case: Case) -> None:
    family, folder = fit_of(case)
    card = read_card(str(folder))
    assert (card.privacy["guarantee"] is None) == (case.privacy is None)
    if case.privacy is None:
        assert ("holds the training rows" in card.privacy["text"]) == family.holds_rows


@EACH
def test_too_few_rows_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs at least"):
        case.fit(tmp_path, case.rows()[1].slice(0, 1)).run()


def test_a_trainer_that_another_has_overtaken_takes_its_model(tmp_path: Path) -> None:
    """The trainer of a killed driver lives on for seconds, beside that of the next start."""
    case = Case("tvae", SMALL)
    ours, theirs, other = (case.fit(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    card = theirs.run()

    def overtaken(progress: FitProgress) -> None:
        for name in ("weights.safetensors", "model.json"):
            ours.store.put(name, theirs.store.read(name))
            other.store.put(name, theirs.store.read(name))

    assert ours.run(overtaken) == card
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model.json", "weights.safetensors"]
    with pytest.raises(Conflict, match="another fit has written it"):
        other.run(overtaken)
    assert (tmp_path / "c" / "weights.safetensors").read_bytes() == theirs.store.read("weights.safetensors")


def test_a_family_that_is_not_private_refuses_a_budget() -> None:
    for case in CASES:
        if not family_class(case.kind).is_private:
            with pytest.raises(UserError, match="cannot be fitted under a budget"):
                check_fit(case.family(), case.rows()[1], PrivacySpec(1.0, 1e-4))


# Families that break a law each; the checks must name it.


class Forgetful(Independent):
    """Law 1: the model depends on a clock."""

    def begin(self, table: pa.Table, seed: int, account: Any) -> None:
        super().begin(table, seed, account)
        self._tables["sick/shares"] = np.array([1.0, 1e-9 * time.perf_counter_ns()])


class Neighbourly(Independent):
    """Law 2: a row takes the random numbers of the row before it."""

    def sample(self, wanted: Any, seeds: np.ndarray) -> SampleBlock:
        return super().sample(wanted, np.roll(seeds, 1))


class Loose(Independent):
    """Law 3: values lie outside of the declared bounds."""

    def sample(self, wanted: Any, seeds: np.ndarray) -> SampleBlock:
        drawn = super().sample(wanted, seeds)
        return SampleBlock({**drawn.columns, "age": pa.array([999] * len(seeds), pa.int64())}, drawn.reasons)


class Stubborn(Independent):
    """Law 4: conditions are ignored."""

    def sample(self, wanted: Any, seeds: np.ndarray) -> SampleBlock:
        return super().sample([{}] * len(seeds), seeds)


class Lossy(Independent):
    """Law 5: a part of the model is not saved."""

    def restore(self, model_state: Any, training_state: Any = None) -> None:
        super().restore(model_state, training_state)
        self._tables["city/shares"] = self._tables["city/shares"][::-1]


@pytest.mark.parametrize(("family", "law"), [(Forgetful, 1), (Neighbourly, 2), (Loose, 3), (Stubborn, 4), (Lossy, 5)])
def test_a_family_that_breaks_a_law_is_caught(family: Any, law: int) -> None:
    schema, rows = patients()
    with pytest.raises(AssertionError, match=f"breaks law {law}"):
        check_family(lambda: family(family.Spec(), schema), rows)
