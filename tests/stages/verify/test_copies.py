"""Copies of training rows: exact distances against a plain computation, thresholds, memory that does not grow."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.verify.copies import Copies, CopiesSpec
from tests.profiles import scaled

ROWS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(-5, 5)), st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))),
    min_size=1,
    max_size=8,
)
KINDS = [pa.field("n", pa.int64()), pa.field("c", pa.string())]


def table_of(rows: list[tuple[Any, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"n": n, "c": c} for n, c in rows], pa.schema(KINDS))


def opened(folder: Path, rows: pa.Table, **table: Any) -> Copies:
    pq.write_table(rows, folder / "rows.parquet")
    made = Copies(build(CopiesSpec, {"rows": {"path": str(folder / "rows.parquet")}, **table}, "stages[0]"))
    made.check()
    made.open()
    return made


def run(stage: Copies, rows: pa.Table) -> list[dict[str, Any]]:
    batch = rows.append_column(REJECT, pa.nulls(rows.num_rows, pa.string())).combine_chunks().to_batches()[0]
    return list(stage.run(batch).to_pylist())


def plain(one: tuple[Any, Any], other: tuple[Any, Any], span: float) -> float:
    """The distance as one writes it by hand."""
    if one[0] is None or other[0] is None:
        number = float(one[0] is not other[0])
    else:
        number = ((one[0] - other[0]) / span) ** 2
    return (number + float(one[1] != other[1])) ** 0.5


@settings(max_examples=scaled(60))
@given(ROWS, ROWS)
def test_the_distance_is_that_of_the_nearest_row(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, asked: Any
) -> None:
    stage = opened(tmp_path_factory.mktemp("copies"), table_of(rows))
    known = [n for n, _ in rows if n is not None]
    span = (max(known) - min(known)) if known else 1
    for row, found in zip(asked, run(stage, table_of(asked))):
        whole = [plain(row, other, span or 1) for other in rows]
        assert found["dcr"] == pytest.approx(min(whole), abs=1e-5)
        assert whole[found["dcr_row"]] == pytest.approx(min(whole), abs=1e-5)
        assert (found["reject"] == "copies:exact") == (row in rows)
        assert (found["dcr"] == 0) == (row in rows)


def test_near_copies_by_distance_and_by_share(tmp_path: Path) -> None:
    rows = table_of([(n, "a") for n in range(0, 101, 10)])
    asked = table_of([(50, "a"), (51, "a"), (54, "a"), (50, "b")])
    by_distance = [r["reject"] for r in run(opened(tmp_path, rows, near=0.02), asked)]
    assert by_distance == ["copies:exact", "copies:near", None, None]
    assert [r["reject"] for r in run(opened(tmp_path, rows, exact=False), asked)] == [None] * 4
    by_share = [r["reject"] for r in run(opened(tmp_path, rows, near_share=0.5), asked)]
    assert by_share == ["copies:exact", "copies:near", "copies:near", None]  # training rows lie 0.1 apart


def test_a_strange_value_is_near_to_nothing(tmp_path: Path) -> None:
    found = run(opened(tmp_path, table_of([(1, "a"), (3, None)])), table_of([(1, "never seen"), (3, None)]))
    assert found[0]["dcr"] == 1.0 and found[1]["reject"] == "copies:exact"


def test_memory_is_that_of_the_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = pa.table({"n": random.integers(0, 1000, 20_000), "c": random.choice(["a", "b"], 20_000)})
    stage = opened(tmp_path, rows)
    assert stage._index.numbers.nbytes + stage._index.codes.nbytes == 20_000 * 3 * 4
    assert all(r["reject"] == "copies:exact" for r in run(stage, rows.slice(100, 300)))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no column 'm' \(known: c, n\)|did you mean"):
        opened(tmp_path, table_of([(1, "a")]), columns=["m"])
    with pytest.raises(UserError, match="near_share"):
        opened(tmp_path, table_of([(1, "a")]), near=0.1, near_share=0.1)
