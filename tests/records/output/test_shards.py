"""A lot is parted without loss, the same rows give the same bytes, and the footer tells the sum."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import Conflict
from gristmill.records.lots import Plan, asks
from gristmill.records.output.shards import (
    OutputSpec,
    data_sha256,
    encode,
    lot_number,
    parse_meta,
    put_kept,
    put_rejected,
    read_meta,
    shard_name,
)
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import ASK, REJECT, full_schema, set_column
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
    meta = parse_meta(pq.read_metadata(pa.BufferReader(encoded.kept)))
    assert meta["summary"] == encoded.summary and meta["data_sha256"] == data_sha256(encoded.kept)


def test_the_kept_shard_is_put_once(tmp_path) -> None:
    store = open_store(str(tmp_path))
    encoded = encode(lot_of([None, "a:x"]), SCHEMA, 3, OutputSpec())
    put_rejected(store, encoded)
    put_rejected(store, encoded)  # a run that died between the puts does this again
    put_kept(store, encoded)
    assert read_meta(store, 3)["summary"] == encoded.summary
    with pytest.raises(Conflict, match="another run has written it"):
        put_kept(store, encoded)


def test_a_rival_rejected_shard_is_never_replaced(tmp_path) -> None:
    store = open_store(str(tmp_path))
    ours, theirs = (encode(lot_of(r), SCHEMA, 3, OutputSpec()) for r in ([None, "a:x"], [None, "b:y"]))
    put_rejected(store, ours)
    with pytest.raises(Conflict):
        put_rejected(store, theirs)
    assert store.read(shard_name("rejected", 3)) == ours.rejected


def test_a_batch_of_another_schema_is_refused() -> None:
    batch = lot_of([None])
    with pytest.raises(ValueError, match="lacks the columns text"):
        encode(batch.drop_columns(["text"]), SCHEMA, 0, OutputSpec())
    wrong = set_column(batch, pa.field("text", pa.int64()), pa.array([1]))
    with pytest.raises(ValueError, match="does not fit"):
        encode(wrong, SCHEMA, 0, OutputSpec())


def test_names_go_both_ways() -> None:
    assert lot_number(shard_name("kept", 42)) == 42 and shard_name("kept", 42) == "kept/part-00000042.parquet"
    assert lot_number("kept/other.parquet") is None
