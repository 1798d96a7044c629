"""The shards of a lot: a kept shard and at most one rejected shard. No other code separates kept from rejected rows.

The rejected shard is written first, the kept shard last and only if absent: the kept shard is the commit. Its footer
holds the summary of the lot and the digest of its rejected shard, so that totals need no rows.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.records.errors import Conflict
from gristmill.records.schema import REJECT
from gristmill.records.stores.contract import Store

KEPT, REJECTED = "kept", "rejected"
SUMMARY_KEY = b"gristmill"
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


@dataclass
class Summary:
    """Counts of one lot or, added up, of a run. generated = kept + sum(rejected)."""

    num_lots: int = 0
    asks: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # by reason
    tokens_in: int = 0
    tokens_out: int = 0
    kept_tokens: int = 0  # tokens_out of kept rows
    rejected_tokens: dict[str, int] = field(default_factory=dict)  # tokens_out by reason: the cost of the filters
    kept_bytes: int = 0  # unknown to the summary of a lot; filled from the listing
    # Of stages that balance, by stage and label: rows that reached the stage, and kept rows.
    offered: dict[str, dict[str, int]] = field(default_factory=dict)
    admitted: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def num_rejected(self) -> int:
        return sum(self.rejected.values())

    def add(self, other: "Summary") -> None:
        for name in ("num_lots", "asks", "kept", "tokens_in", "tokens_out", "kept_tokens", "kept_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.rejected, other.rejected), (self.rejected_tokens, other.rejected_tokens)):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count
        for held, more in ((self.offered, other.offered), (self.admitted, other.admitted)):
            for stage, labels in more.items():
                counts = held.setdefault(stage, {})
                for label, count in labels.items():
                    counts[label] = counts.get(label, 0) + count

    def literals(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v or k not in ("offered", "admitted")}


@dataclass(frozen=True)
class Encoded:
    """The encoded shards of a lot."""

    lot: int
    kept: bytes
    rejected: bytes | None
    summary: Summary


def shard_name(folder: str, lot: int) -> str:
    return f"{folder}/part-{lot:08d}.parquet"


def lot_number(name: str) -> int | None:
    """The lot number in the name of a shard, None for any other object."""
    stem = name.rsplit("/", 1)[-1]
    if not (stem.startswith("part-") and stem.endswith(".parquet")):
        return None
    digits = stem[len("part-") : -len(".parquet")]
    return int(digits) if digits.isdigit() else None


def summarise(table: pa.Table) -> Summary:
    """Counts over the rows of a lot."""
    reject = table.column(REJECT.name)
    rejects = pa.table({"reason": reject, "tokens": table.column("tokens_out")}).filter(reject.is_valid())
    by_reason = rejects.group_by("reason").aggregate([([], "count_all"), ("tokens", "sum")]).sort_by("reason")
    reasons = by_reason.column("reason").to_pylist()
    alive = reject.is_null()
    tokens_out = table.column("tokens_out")
    return Summary(
        num_lots=1,
        asks=table.num_rows,
        kept=reject.null_count,
        rejected=dict(zip(reasons, by_reason.column("count_all").to_pylist())),
        tokens_in=pc.sum(table.column("tokens_in")).as_py() or 0,
        tokens_out=pc.sum(tokens_out).as_py() or 0,
        kept_tokens=pc.sum(tokens_out.filter(alive)).as_py() or 0,
        rejected_tokens={r: n or 0 for r, n in zip(reasons, by_reason.column("tokens_sum").to_pylist())},
    )


def encode(
    batch: pa.RecordBatch, schema: pa.Schema, lot: int, spec: OutputSpec, labels: Sequence[LabelCounts] = ({}, {})
) -> Encoded:
    """Separate the rows of a finished lot and encode them as Parquet; the same batch gives the same bytes.

    `labels`: `offered` and `admitted` of the summary.

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
    rejected = _parquet(table.filter(pc.invert(alive)), spec) if summary.num_rejected else None
    meta = {
        "lot": lot,
        "summary": summary.literals(),
        "rejected_sha256": hashlib.sha256(rejected).hexdigest() if rejected else None,
    }
    return Encoded(lot, _parquet(table.filter(alive), spec, meta), rejected, summary)


def _parquet(table: pa.Table, spec: OutputSpec, meta: dict[str, Any] | None = None) -> bytes:
    """Parquet bytes; the footer holds `meta` and the sha256 of all bytes before the footer."""
    sink = io.BytesIO()
    # Dictionaries are useful for repeated values; for unique texts, ids and signatures they only take time.
    repeated = [
        f.name
        for f in table.schema
        if pa.types.is_string(f.type) and f.name not in ("id", "text", "prompt", "duplicate_of", "source_id")
    ]
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=spec.compression_level,
        use_dictionary=repeated,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table.combine_chunks(), row_group_size=spec.row_group_rows)
        if meta is not None:
            meta = {**meta, "data_sha256": hashlib.sha256(sink.getbuffer()).hexdigest()}
            writer.add_key_value_metadata({SUMMARY_KEY: json.dumps(meta, sort_keys=True).encode()})
    return sink.getvalue()


def data_sha256(shard: bytes) -> str:
    """sha256 of the bytes of a Parquet file before its footer, to compare with the value in the footer."""
    footer_bytes = int.from_bytes(shard[-8:-4], "little") + 8
    return hashlib.sha256(memoryview(shard)[: len(shard) - footer_bytes]).hexdigest()


def put_rejected(store: Store, encoded: Encoded) -> None:
    """Write the lot's rejected shard, if absent.

    Raises Conflict when another shard exists. This run has removed the leftovers of earlier runs at its start, so the
    shard is of another driver.
    """
    name = shard_name(REJECTED, encoded.lot)
    if encoded.rejected is None:
        return
    try:
        store.put(name, encoded.rejected, if_absent=True)
    except Conflict:
        if store.read(name) != encoded.rejected:
            raise


def put_kept(store: Store, encoded: Encoded) -> None:
    """Commit the lot. Raises Conflict when it is already committed."""
    store.put(shard_name(KEPT, encoded.lot), encoded.kept, if_absent=True)


def read_meta(store: Store, lot: int) -> dict[str, Any]:
    """`parse_meta` of the kept shard of a committed lot; only the footer is read."""
    with store.open(shard_name(KEPT, lot)) as file:
        return parse_meta(pq.read_metadata(file))


def parse_meta(metadata: pq.FileMetaData) -> dict[str, Any]:
    """{"lot", "summary": Summary, "rejected_sha256", "data_sha256"}. Raises KeyError when the footer lacks it."""
    meta = json.loads((metadata.metadata or {})[SUMMARY_KEY])
    return {**meta, "summary": Summary(**meta["summary"])}
