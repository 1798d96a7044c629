"""A lot is parted without loss, the same rows give the same bytes, and the footer tells the sum."""

import json
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import Conflict
from gristmill.records.lots import Plan, asks
from gristmill.records.output.ledger import settle
from gristmill.records.output.shard_names import kept_lot, rejected_lot, shard_name
from gristmill.records.output.shard_reading import UnreadableShard, read_meta
from gristmill.records.output.shards import Encoded, OutputSpec, Summary, encode, put_kept, put_rejected
from gristmill.records.readers.parquet import SUMMARY_KEY
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import ASK, REJECT, full_schema, set_column
from gristmill.records.sealed import data_sha256
from gristmill.records.stores.opening import open_store

TEXT = pa.field("text", pa.string())
SCHEMA = full_schema([TEXT], [])


def lot_of(reasons: list[str | None], lot: int = 3) -> pa.RecordBatch:
    count = len(reasons)
    source = open_source(SourceSpec(items=("x",)))
    batch = asks(Plan("cd" * 16, max(count, 1), None, 1, "canned"), source, lot).slice(0, count)
    batch = set_column(batch, TEXT, pa.array([f"text {i}" for i in range(count)], pa.string()))
    batch = set_column(batch, batch.schema.field("tokens_out"), pa.array([10] * count, pa.int32()))
    return set_column(batch, REJECT, pa.array(reasons, pa.string())).drop_columns([ASK.name])


@given(st.lists(st.sampled_from([None, None, "a:x", "b:y"]), max_size=30))
def test_generated_is_kept_plus_rejected(reasons: list[str | None]) -> None:
    encoded = encode(lot_of(reasons), SCHEMA, 3, OutputSpec())
    kept = pq.read_table(pa.BufferReader(encoded.kept))
    rejected = pq.read_table(pa.BufferReader(encoded.rejected)) if encoded.rejected else None
    assert kept.num_rows == reasons.count(None) == encoded.summary.kept
    assert kept.num_rows + (rejected.num_rows if rejected else 0) == len(reasons) == encoded.summary.asks
    for reason in ("a:x", "b:y"):
        assert encoded.summary.rejected.get(reason, 0) == reasons.count(reason)
    assert encoded.summary.kept_tokens == 10 * kept.num_rows
    assert encode(lot_of(reasons), SCHEMA, 3, OutputSpec()) == encoded
    footer = json.loads(pq.read_metadata(pa.BufferReader(encoded.kept)).metadata[SUMMARY_KEY])
    assert footer["rejected"] == encoded.rejected_name and footer["data_sha256"] == data_sha256(encoded.kept)


def test_the_kept_shard_is_put_once(tmp_path) -> None:
    store = open_store(str(tmp_path))
    encoded = encode(lot_of([None, "a:x"]), SCHEMA, 3, OutputSpec())
    put_rejected(store, encoded)
    put_rejected(store, encoded)  # a run that died between the puts does this again
    put_kept(store, encoded)
    assert read_meta(store, 3)["summary"] == encoded.summary
    with pytest.raises(Conflict, match="another run has written it"):
        put_kept(store, encoded)


def test_other_rejected_rows_have_another_name(tmp_path) -> None:
    store = open_store(str(tmp_path))
    ours, theirs = (encode(lot_of(r), SCHEMA, 3, OutputSpec()) for r in ([None, "a:x"], [None, "b:y"]))
    put_rejected(store, ours)
    put_rejected(store, theirs)
    put_kept(store, ours)
    with pytest.raises(Conflict):
        put_kept(store, theirs)
    assert [e.name for e in store.list("rejected/")] == [ours.rejected_name]  # the loser removes what it has put
    assert store.read(str(ours.rejected_name)) == ours.rejected


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.sets(st.integers(0, 6)))
def test_settling_removes_what_no_kept_shard_names_and_nothing_else(has_rejected: list[bool], left: set[int]) -> None:
    """`left`: lots with a rejected shard of a driver that died; some are committed, some are not."""
    with tempfile.TemporaryDirectory() as folder:
        store, totals, named = open_store(folder), Summary(), set()
        for lot, is_rejecting in enumerate(has_rejected):
            encoded = encode(lot_of([None, "a:x" if is_rejecting else None], lot), SCHEMA, lot, OutputSpec())
            put_rejected(store, encoded)
            put_kept(store, encoded)
            totals.add(encoded.summary)
            named |= {encoded.rejected_name} - {None}
        leftovers = {lot: encode(lot_of([None, "b:y"], lot), SCHEMA, lot, OutputSpec()) for lot in left}
        for encoded in leftovers.values():
            put_rejected(store, encoded)
        waiting = {lot: [str(e.rejected_name)] for lot, e in leftovers.items() if lot >= len(has_rejected)}
        assert settle(store, totals) == waiting
        names = {entry.name for entry in store.list("rejected/")}
        assert names == named | {name for names in waiting.values() for name in names}


def test_a_strange_object_of_the_name_is_never_replaced(tmp_path) -> None:
    store = open_store(str(tmp_path))
    encoded = encode(lot_of([None, "a:x"]), SCHEMA, 3, OutputSpec())
    store.put(str(encoded.rejected_name), b"other")
    with pytest.raises(Conflict):
        put_rejected(store, encoded)


def test_a_shard_under_another_name_is_refused(tmp_path) -> None:
    store = open_store(str(tmp_path))
    store.put(shard_name("kept", 4), encode(lot_of([None]), SCHEMA, 3, OutputSpec()).kept)
    with pytest.raises(UnreadableShard, match="it is lot 3"):
        read_meta(store, 4)


def test_a_batch_of_another_schema_is_refused() -> None:
    batch = lot_of([None])
    with pytest.raises(ValueError, match="lacks the columns text"):
        encode(batch.drop_columns(["text"]), SCHEMA, 0, OutputSpec())
    wrong = set_column(batch, pa.field("text", pa.int64()), pa.array([1]))
    with pytest.raises(ValueError, match="does not fit"):
        encode(wrong, SCHEMA, 0, OutputSpec())


@pytest.mark.parametrize("lot", [0, 42, 99_999_999, 100_000_000])
def test_names_go_both_ways(lot: int) -> None:
    assert kept_lot(shard_name("kept", lot)) == lot
    assert rejected_lot(shard_name("rejected", lot)) == lot  # of 0.2
    encoded = Encoded(lot, b"", b"rows", Summary())
    assert rejected_lot(str(encoded.rejected_name)) == lot


STRANGERS = (
    *("other.parquet", "part-3.parquet", "part-000000003.parquet", "old/part-00000003.parquet", "part-00000003"),
    *("part-00000003.parquet.bak", "part-00000003 (1).parquet", "part--0000003.parquet", "part-0000000٣.parquet"),
    *("PART-00000003.parquet", "part-00000003-0123456789abcdeg.parquet", "part-00000003-.parquet", "_SUCCESS"),
)


@pytest.mark.parametrize("name", STRANGERS)
def test_no_other_name_is_a_shard(name: str) -> None:
    assert kept_lot(f"kept/{name}") is None and rejected_lot(f"rejected/{name}") is None
    assert kept_lot("rejected/part-00000003.parquet") is None and rejected_lot("kept/part-00000003.parquet") is None
    assert kept_lot("kept/part-00000003-0123456789abcdef.parquet") is None
