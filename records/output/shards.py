"""The shards of a lot: a kept shard and at most one rejected shard. No other code separates kept from rejected rows.

The rejected shard is written first, the kept shard last and only if absent: the kept shard is the commit. Its footer
holds the summary of the lot and names its rejected shard. That name contains a digest of the rejected rows, so two
drivers that write the same lot with other rows never write the same object, and a driver that was paused may commit at
any time. A rejected shard may be deleted only after its lot is committed, and only if the kept shard names another.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import Conflict, UserError
from gristmill.records.output.shard_names import KEPT, REJECTED, rejected_name, shard_name
from gristmill.records.output.shard_reading import read_meta
from gristmill.records.output.summary import Summary, by_generator, summarise
from gristmill.records.readers.parquet import SUMMARY_KEY
from gristmill.records.schema import REJECT
from gristmill.records.sealed import write_sealed
from gristmill.records.stores.contract import PendingPut, Store

__all__ = [
    "KEPT",
    "REJECTED",
    "Encoded",
    "OutputSpec",
    "Summary",
    "begin_kept",
    "encode",
    "put_kept",
    "put_rejected",
    "shard_name",
]

CLOSED_AT = "closed_at"  # key of the footer
LabelCounts = Mapping[str, dict[str, int]]  # stage -> label -> rows


@dataclass(frozen=True)
class OutputSpec:
    """`[output]` of a recipe: how shards are written. It changes bytes, so it is part of the identity."""

    compression_level: int = 3  # Level of zstd, 1 to 19.
    row_group_rows: int = 8192  # Rows in a Parquet row group.

    def __post_init__(self) -> None:
        if not 1 <= self.compression_level <= 19:
            raise ValueError("compression_level must lie in 1..19 (zstd)")
        if self.row_group_rows < 1:
            raise ValueError("row_group_rows must be at least 1")


@dataclass(frozen=True)
class Encoded:
    """The encoded shards of a lot."""

    lot: int
    kept: bytes
    rejected: bytes | None
    summary: Summary

    @cached_property
    def rejected_name(self) -> str | None:
        return None if self.rejected is None else rejected_name(self.lot, _sha256(self.rejected))


def encode(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    lot: int,
    spec: OutputSpec,
    labels: Sequence[LabelCounts] = ({}, {}),
    closed_at: int | None = None,
    has_several: bool = False,
) -> Encoded:
    """Separate the rows of a finished lot and encode them as Parquet; the same batch gives the same bytes.

    `labels`: `offered` and `admitted` of the summary. `closed_at`: the number of kept rows at which this lot closes its
    output. has_several: whether the run has several generators, which the summary then counts one by one.

    Raises ValueError when a column of the schema is missing in the batch or has another type.
    """
    missing = [f.name for f in schema if f.name not in batch.schema.names]
    if missing:
        raise ValueError(f"lot {lot} lacks the columns {', '.join(missing)}")
    table = pa.Table.from_batches([batch]).select(schema.names)
    if table.schema.types != schema.types:
        raise ValueError(f"lot {lot} does not fit the run's schema:\n{table.schema}\nexpected:\n{schema}")
    table = table.cast(schema)  # keeps nullability and field metadata
    alive = table.column(REJECT.name).is_null()
    summary = replace(summarise(table), offered=dict(labels[0]), admitted=dict(labels[1]))
    if has_several:
        summary.generators = by_generator(table)
    rejected = _parquet(table.filter(pc.invert(alive)), spec) if summary.num_rejected else None
    sha256 = _sha256(rejected) if rejected else None
    meta = {
        "lot": lot,
        "summary": summary.literals(),
        "rejected": rejected_name(lot, sha256) if sha256 else None,
        "rejected_sha256": sha256,
        "data_sha256": "%DATA_SHA256%",
    }
    if closed_at is not None:
        meta[CLOSED_AT] = closed_at
    return Encoded(lot, _parquet(table.filter(alive), spec, meta), rejected, summary)


def _parquet(table: pa.Table, spec: OutputSpec, meta: dict[str, Any] | None = None) -> bytes:
    """Sealed Parquet; the footer holds `meta`."""
    # Dictionaries are useful for repeated values; for unique texts, ids and signatures they only take time.
    repeated = [
        f.name
        for f in table.schema
        if pa.types.is_string(f.type) and f.name not in ("id", "text", "prompt", "duplicate_of", "source_id")
    ]
    return write_sealed(
        table.combine_chunks(),
        spec.row_group_rows,
        {SUMMARY_KEY: json.dumps(meta, sort_keys=True).encode()} if meta else None,
        compression="zstd",
        compression_level=spec.compression_level,
        use_dictionary=repeated,
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put_rejected(store: Store, encoded: Encoded) -> None:
    """Write the lot's rejected shard, if absent: a driver that died between the puts of a lot may have written it.

    Raises Conflict when the object of its name holds other bytes, which another program has written.
    """
    if encoded.rejected is None or encoded.rejected_name is None:
        return
    try:
        store.put(encoded.rejected_name, encoded.rejected, if_absent=True)
    except Conflict:
        if store.read_if_there(encoded.rejected_name) != encoded.rejected:
            raise


def begin_kept(store: Store, encoded: Encoded) -> PendingPut:
    """The put of the kept shard, whose bytes can travel before the lot's turn to be committed."""
    return store.begin_put(shard_name(KEPT, encoded.lot), encoded.kept)


def put_kept(store: Store, encoded: Encoded, pending: PendingPut | None = None) -> None:
    """Commit the lot; `pending` is its put if that has begun.

    Raises Conflict when another driver has committed it. The rejected shard is then deleted, unless it is that
    driver's too.
    """
    try:
        (pending or begin_kept(store, encoded)).complete()
    except Conflict:
        if encoded.rejected_name is not None:
            with suppress(UserError, OSError):  # a leftover is removed by the next start
                if read_meta(store, encoded.lot)["rejected"] != encoded.rejected_name:
                    store.delete(encoded.rejected_name)
        raise
