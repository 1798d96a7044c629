"""Rows that are taken as they are committed are those that are there at the end."""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.committed import CommittedRows, Upstream, extent_of, kept_digest
from gristmill.records.errors import InputChanged, UserError
from gristmill.records.lots import Plan, asks
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import OutputSpec, Summary, encode, put_kept
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import ASK, REJECT, full_schema, set_column
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

MARK, LOT_SIZE = "ab" * 16, 4
TEXT = pa.field("text", pa.string())
SCHEMA = full_schema([TEXT], [])
RECIPE = {"name": "x", "limits": {"asks": None, "kept_rows": 7}, "source": {"samples": 1, "cycle": True}}
UPSTREAM = Upstream("before", MARK, extent_of(RECIPE), True, tuple(SCHEMA.names))


def commit(store: Store, lot: int, num_kept: int) -> None:
    source = open_source(SourceSpec(items=("x",)))
    batch = asks(Plan(MARK, LOT_SIZE, None, 1, "canned"), source, lot)
    batch = set_column(batch, TEXT, pa.array([f"text {lot} {row}" for row in range(LOT_SIZE)]))
    batch = set_column(batch, batch.schema.field("tokens_out"), pa.array([1] * LOT_SIZE, pa.int32()))
    reasons = [None if row < num_kept else "a:x" for row in range(LOT_SIZE)]
    batch = set_column(batch, REJECT, pa.array(reasons, pa.string())).drop_columns([ASK.name])
    put_kept(store, encode(batch, SCHEMA, lot, OutputSpec()))


def end(store: Store, sizes: list[int], **changes: object) -> None:
    totals = Summary(num_lots=len(sizes), kept=sum(sizes), asks=LOT_SIZE * len(sizes))
    Manifest(MARK, {**RECIPE, **changes}, {}, "complete", totals).save(store)


def rows_of(store: Store, by_plan: bool = True, upstream: Upstream = UPSTREAM, **spec: object) -> CommittedRows:
    rows = CommittedRows(store, upstream, SourceSpec(path="step:before", **spec), by_plan)  # type: ignore[arg-type]
    rows._looked_s = float("-inf")
    return rows


def look(rows: CommittedRows) -> None:
    rows._looked_s = float("-inf")  # at once, not after a wait
    rows.look()


@settings(max_examples=20)
@given(st.lists(st.integers(0, LOT_SIZE), min_size=1, max_size=6).filter(any), st.booleans(), st.data())
def test_taken_as_they_come_or_at_the_end(sizes: list[int], together: bool, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        growing = rows_of(store, samples=3 if together else 1, together=together)
        taken: list[tuple[str, str]] = []
        for lot, size in enumerate(sizes):
            commit(store, lot, size)
            if data.draw(st.booleans()):
                look(growing)
                stop = data.draw(st.integers(len(taken), growing.num_asks))
                taken += growing.ask_rows(len(taken), stop, 0) if stop > len(taken) else []
        assert not growing.is_ended
        end(store, sizes)
        for _ in range(2):
            look(growing)
        assert growing.is_ended
        taken += growing.ask_rows(len(taken), growing.num_asks, 0) if growing.num_asks > len(taken) else []
        whole = rows_of(store, samples=3 if together else 1, together=together)
        assert whole.is_ended and whole.num_asks == growing.num_asks == len(taken)
        assert taken == whole.ask_rows(0, whole.num_asks, whole.num_rows)
        assert growing.digest() == whole.digest() == UPSTREAM.identity
        whole._open_next(len(sizes))
        growing._open_next(len(sizes))
        assert growing.record() == whole.record()
        assert whole.content_digest == kept_digest(store, len(sizes)) == rows_of(store, by_plan=False).digest()


def test_a_gap_ends_what_is_there(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for lot in (0, 2):
        commit(store, lot, 4)
    rows = rows_of(store)
    look(rows)
    assert rows.num_rows == 4
    commit(store, 1, 2)
    look(rows)
    assert rows.num_rows == 10
    assert [source_id for source_id, _ in rows.rows(3, 6)] == [
        "part-00000000.parquet:3",
        "part-00000001.parquet:0",
        "part-00000001.parquet:1",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"kept_rows": 5}},
        {"source": {"samples": 2, "cycle": True}},
        {"source": {"samples": 1, "cycle": False}},
    ],
)
def test_an_earlier_start_with_another_end_is_no_end(changes: dict, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit(store, 0, 4)
    end(store, [4], **changes)
    assert not rows_of(store).is_ended
    end(store, [4])
    assert rows_of(store).is_ended


def test_a_run_that_kept_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit(store, 0, 0)
    rows = rows_of(store)
    end(store, [0])
    with pytest.raises(UserError, match="step 'before' kept no row"):
        look(rows)


def test_other_lots_than_those_that_were_read(tmp_path: Path) -> None:
    first, second = open_store(str(tmp_path / "a")), open_store(str(tmp_path / "b"))
    for lot in range(3):
        commit(first, lot, 3)
        commit(second, lot, 3 if lot < 2 else 2)
    rows = rows_of(first)
    look(rows)
    rows_of(first).verify(rows.record())
    with pytest.raises(InputChanged, match="the first 3 lots of .* are not those"):
        rows_of(second).verify(rows.record())
    (tmp_path / "a" / "kept" / "part-00000002.parquet").unlink()
    with pytest.raises(InputChanged, match="it is missing"):
        rows_of(first).verify(rows.record())
    with pytest.raises(InputChanged, match="no longer there"):
        rows.check()


def test_two_extents_are_two_identities() -> None:
    recipes = [RECIPE, {**RECIPE, "limits": {"kept_rows": 8}}, {**RECIPE, "source": {"samples": 2, "cycle": True}}]
    marks = {Upstream("s", MARK, extent_of(recipe), True, ()).identity for recipe in recipes}
    assert len(marks) == 3
    assert Upstream("other name", MARK, extent_of(RECIPE), True, ()).identity in marks


def test_columns_of_a_step_have_other_names(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit(store, 0, LOT_SIZE)
    end(store, [LOT_SIZE])
    rows = rows_of(store, columns={"before": "text", "key": "id"}, id_column="key")
    names = {"before", "key"}
    assert names <= rows.columns and not {"text", "id"} & rows.columns
    ((key, text), *_) = rows.rows(0, 2)
    row = json.loads(text)
    assert row["key"] == key and row["before"] == "text 0 0" and not {"text", "id"} & row.keys()
