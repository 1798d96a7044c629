"""Rows are equal when all their columns are, and only then."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.dedup.rows import DedupRows, DedupRowsSpec, row_hashes

SCHEMA = pa.schema(
    [
        pa.field("age", pa.int64()),
        pa.field("income", pa.float64()),
        pa.field("city", pa.string()),
        pa.field("path", pa.list_(pa.float32())),
        REJECT,
    ]
)
ROWS = st.tuples(
    st.one_of(st.none(), st.integers(-3, 3)),
    st.one_of(st.none(), st.sampled_from([0.0, -0.0, 0.5, 1.0])),
    st.one_of(st.none(), st.sampled_from(["", "a", "b", "None"])),
    st.one_of(st.none(), st.lists(st.sampled_from([0.0, 1.5]), max_size=2)),
)


def batch(rows: list[tuple]) -> pa.RecordBatch:
    names = SCHEMA.names[:-1]
    return pa.RecordBatch.from_pylist([dict(zip(names, r)) for r in rows], SCHEMA)


@given(st.lists(ROWS, min_size=1, max_size=12))
def test_hashes_are_equal_just_when_rows_are(rows: list[tuple]) -> None:
    stage = DedupRows(DedupRowsSpec(columns=("age", "income", "city", "path")))
    answer = stage.run(batch(rows))
    hashes = answer.column("row_hash").to_pylist()
    keys = stage.keys(answer.column("row_hash"))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows[:i]):
            assert (hashes[i] == hashes[j]) == (a == b) == (keys[i, 0] == keys[j, 0])  # -0.0 == 0.0 in both worlds
    assert row_hashes(batch(rows).select([0, 1, 2, 3]).slice(len(rows) - 1)) == [hashes[-1]]


def test_only_the_columns_named_count() -> None:
    stage = DedupRows(DedupRowsSpec(columns=("city",)))
    answer = stage.run(batch([(1, 0.5, "a", None), (2, 0.7, "a", [1.5]), (1, 0.5, "b", None)]))
    first, second, third = answer.column("row_hash").to_pylist()
    assert first == second != third and stage.bands == 1 and stage.reads() == ["city"]
    assert stage.keys(pa.chunked_array([], pa.binary(16))).shape == (0, 1)


@pytest.mark.parametrize("table", [{}, {"columns": []}, {"columns": ["a", "a"]}])
def test_refusals(table: dict) -> None:
    with pytest.raises(UserError, match="columns"):
        build(DedupRowsSpec, table, "stages[0]")
