"""The public schema: what it takes, what it refuses and with which words; what it makes of rows alone."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.readers.tables import IMAGE, MAX_INFERRED, Column, TableSchema, from_rows, infer, round_off
from gristmill.records.spec import build

SCHEMA = TableSchema(
    (
        Column("age", "integer", 0, 120),
        Column("height_m", "numeric", 0.0, 3.0, decimals=2, nullable=True),
        Column("city", "category", categories=("Oslo", "Lima")),
    )
)
GOOD = {"age": [30, 40], "height_m": [1.7, None], "city": ["Oslo", "Lima"]}


def test_a_table_comes_out_in_the_schemas_order_and_types() -> None:
    shuffled = pa.table({"city": ["Oslo", "Lima"], "extra": [1, 2], "height_m": [1.7, math.nan], "age": [30.0, 40.0]})
    table = SCHEMA.conform(shuffled)
    assert table.schema == pa.schema(SCHEMA.payload)
    assert table.to_pydict() == GOOD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": None}, "has no column 'age'"),
        ({"age": [30, 200]}, "'age' holds 200, beyond high = 120"),
        ({"age": [30.5, 40.0]}, "'age' is no integer column"),
        ({"age": pa.array([30, None], pa.int64())}, "'age' has 1 missing values"),
        ({"height_m": pa.array([None, None], pa.float64())}, "'height_m' has only missing values"),
        ({"height_m": [1.0, math.inf]}, "'height_m' has infinite values"),
        ({"height_m": ["tall", "short"]}, "'height_m' is no numeric column"),
        ({"city": ["Oslo", "Rome"]}, "has 1 categories that are not in the schema: 'Rome'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict, words: str) -> None:
    table = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(UserError, match=words):
        SCHEMA.conform(pa.table(table))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"columns": []}, "at least one column"),
        ({"columns": [{"name": "a", "kind": "category"}]}, "list its categories"),
        ({"columns": [{"name": "a", "kind": "category", "categories": ["x", "x"]}]}, "listed twice"),
        ({"columns": [{"name": "a", "kind": "numeric", "low": 2.0, "high": 1.0}]}, "low 2.0 is above high 1.0"),
        ({"columns": [{"name": "a", "kind": "image"}]}, "needs height, width and channels"),
        ({"columns": [{"name": "seed", "kind": "numeric"}]}, "'seed' is not allowed"),
        ({"columns": [{"name": "a", "kind": "numeric"}, {"name": "a", "kind": "numeric"}]}, "declared twice"),
        ({"columns": [{"name": "a", "kind": "number"}]}, "'number' is not one of"),
    ],
)
def test_a_schema_that_means_nothing_is_refused(table: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(TableSchema, table, "schema")


def test_a_schema_is_inferred_with_a_warning() -> None:
    schema, doubts = infer(pa.table({**GOOD, "member": [True, False]}))
    assert schema.inferred and "declare a schema" in doubts[0]
    age, height, city, member = schema.columns
    assert (age.kind, age.low, age.high) == ("integer", 30, 40)
    assert (height.kind, height.nullable, height.decimals) == ("numeric", True, 1)
    assert city.categories == ("Lima", "Oslo")
    assert member.categories == ("false", "true")
    assert schema.conform(pa.table({**GOOD, "member": [True, False]})).column("member").to_pylist() == ["true", "false"]


def test_what_cannot_be_inferred_is_told() -> None:
    many = pa.table({"name": [f"row {n}" for n in range(MAX_INFERRED + 1)]})
    with pytest.raises(UserError, match="an identifier"):
        infer(many)
    with pytest.raises(UserError, match="only missing"):
        infer(pa.table({"a": pa.nulls(3, pa.float64())}))
    with pytest.raises(UserError, match="no finite number"):
        infer(pa.table({"a": [math.inf, math.nan]}))
    with pytest.raises(UserError, match="declare its height"):
        infer(pa.table({"a": pa.array([{"bytes": b"", "path": None}], IMAGE)}))


def test_a_million_categories_are_declared_or_left_out() -> None:
    names = [f"c{n}" for n in range(1_000_000)]
    schema = TableSchema((Column("name", "category", categories=tuple(names)),))
    assert schema.conform(pa.table({"name": names[:10]})).num_rows == 10


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.integers(0, 4))
def test_rounding_keeps_to_the_column(numbers: list[float], decimals: int) -> None:
    column = Column("x", "numeric", -1000.0, 1000.0, decimals)
    made = round_off(column, np.array(numbers))
    assert ((made >= -1000) & (made <= 1000)).all()
    assert np.array_equal(np.round(made, decimals), made)


def test_nan_never_leaves() -> None:
    with pytest.raises(ValueError, match="NaN"):
        round_off(Column("x", "numeric"), np.array([1.0, math.nan]))


def test_rows_become_a_table() -> None:
    assert from_rows(SCHEMA, [{"age": 3, "city": "Oslo"}]).to_pylist() == [{"age": 3, "height_m": None, "city": "Oslo"}]
