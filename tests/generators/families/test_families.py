"""The five laws of generators/families/contract.py, for every family on a small table of its own.

Families of images and of episodes are held to them in test_image_families.py and test_adr.py.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.families.contract import KINDS, Family, family_class
from gristmill.generators.families.fit import Fit, Stopped, check_fit
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.private.account import PrivacySpec
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from gristmill.records.stores.opening import open_store
from tests.generators.images.test_families import SPECS as IMAGES
from tests.profiles import scaled

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


def sampled(family: Family, wanted: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any] | str]:
    """Each row, or why there is none; the rest of the block is filled up."""
    whole = [*wanted, *({} for _ in range(family.block - len(wanted)))]
    drawn = family.sample(whole, np.array([*seeds, *range(family.block - len(seeds))], np.int64))
    table = pa.table(drawn.columns)
    assert table.schema.equals(pa.schema(family.schema.payload)), "law 3: the schema's columns and types"
    rows = table.to_pylist()
    return [reason or row for row, reason in zip(rows[: len(wanted)], drawn.reasons)]


def conditions(case: Case) -> st.SearchStrategy[dict[str, Any]]:
    """Values of some columns: any that the schema allows, as a caller may name them."""
    values: dict[str, st.SearchStrategy[Any]] = {}
    for column in case.schema.columns:
        if column.kind == "category":
            values[column.name] = st.sampled_from(column.categories)
        elif column.is_number:
            assert column.low is not None and column.high is not None
            values[column.name] = st.integers(int(column.low), int(column.high)).map(float)
    return st.fixed_dictionaries({}, optional=values)


def test_every_kind_has_a_case() -> None:
    others = {kind for kind, _ in IMAGES.values()} | {
        "adr",
        "classifier",
        "causal_lm",
        "quality",
    }  # in their own files, with their own rows
    assert {c.kind for c in CASES} | others == set(KINDS)


def digest(fit: Fit) -> str:
    return hashlib.sha256(fit.store.read("weights.safetensors")).hexdigest()


@EACH
def test_law_1_the_same_model_wherever_training_stopped(case: Case, tmp_path: Path) -> None:
    _, whole = fit_of(case)
    for stop in range(3):
        again = case.fit(tmp_path / str(stop))
        again.span_s = 0.0  # a step a time
        looks = iter(range(10_000))
        try:
            again.run(is_stopped=lambda: next(looks) == stop)  # noqa: B023
        except Stopped:
            assert not (tmp_path / str(stop) / "model.json").exists()
            again = case.fit(tmp_path / str(stop))
            again.run()
        assert digest(again) == digest(case.fit(whole))
    other = case.fit(tmp_path / "other", seed=2)
    other.run()
    if other.family.num_steps:
        assert digest(other) != digest(again)


@EACH
@settings(max_examples=scaled(8))
@given(st.data())
def test_law_2_a_row_depends_on_no_other_row(case: Case, data: st.DataObject) -> None:
    family, _ = fit_of(case)
    asked = st.lists(conditions(case), min_size=4, max_size=4)
    seeds = st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=4)
    one, other = (data.draw(asked), data.draw(seeds)), (data.draw(asked), data.draw(seeds))
    place = data.draw(st.integers(0, 3))
    for part, rest in zip(one, other):
        rest[place] = part[place]  # type: ignore[call-overload]
    assert sampled(family, *one)[place] == sampled(family, *other)[place]


@EACH
def test_law_3_rows_are_as_the_schema_declares(case: Case) -> None:
    family, _ = fit_of(case)
    drawn = family.sample([{}] * family.block, np.arange(family.block) + 2**62)
    made = pa.table(drawn.columns)
    assert drawn.reasons == [None] * family.block
    assert case.schema.conform(made).equals(made)
    if "height" in made.column_names:
        height = made.column("height").drop_null().to_numpy()
        assert np.isfinite(height).all() and np.array_equal(height.round(1), height)
        if not case.family().is_private:  # those may know no more than the public schema
            assert "Dorf" not in made.column("city").to_pylist(), "a category that no row had is not made up"
    assert len({str(row) for row in made.to_pylist()}) > family.block / 4, "rows differ"


@EACH
@settings(max_examples=scaled(8))
@given(st.data())
def test_law_4_a_condition_is_met_or_refused(case: Case, data: st.DataObject) -> None:
    family, _ = fit_of(case)
    wanted = data.draw(st.lists(conditions(case), min_size=1, max_size=6))
    for asked, row in zip(wanted, sampled(family, wanted, list(range(len(wanted))))):
        if isinstance(row, str):
            assert asked, "a row without conditions can always be had"
        else:
            assert {name: row[name] for name in asked} == asked


@EACH
def test_law_5_a_model_that_came_back_makes_the_same_rows(case: Case) -> None:
    family, folder = fit_of(case)
    card = read_card(str(folder))
    back = load_model(str(folder), card, "cpu")
    wanted = [{c.name: c.categories[0]} for c in case.schema.of_kind("category")]
    for asked in (wanted, [{}]):
        seeds = [7 + i for i in range(len(asked))]
        assert sampled(back, asked, seeds) == sampled(family, asked, seeds)


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


def test_a_family_that_is_not_private_refuses_a_budget() -> None:
    for case in CASES:
        if not family_class(case.kind).is_private:
            with pytest.raises(UserError, match="cannot be fitted under a budget"):
                check_fit(case.family(), case.rows()[1], PrivacySpec(1.0, 1e-4))
