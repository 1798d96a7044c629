"""Benchmark items that rows hold: counted over a sample of lots, with a row's own words for the items met most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.readers.parquet import columns_of, open_parquet
from gristmill.records.schema import REJECT
from gristmill.records.stores.contract import Store

MAX_ITEMS = 12  # of one benchmark that are listed
MAX_QUOTES = 96  # rows that are looked up for their words, in all
MAX_QUOTED = 240  # characters of them
NEAR = 0.1  # below the threshold of a cosine: every row has a nearest item, and most are far


@dataclass(frozen=True)
class Way:
    """How a kind of stage tells what it met: the columns of its evidence, and the reason by which it rejects."""

    kind: str
    benchmark: str
    item: str
    score: str
    start: str
    end: str
    reason: str
    threshold: str  # key of the stage's table

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.benchmark, self.item, self.score

    @property
    def is_measured(self) -> bool:
        """Whether every row has a score, and only those near the threshold are worth telling."""
        return self.kind == "decontaminate_embedding"


WAYS = (
    Way(
        "decontaminate",
        *("overlap_benchmark", "overlap_item", "overlap_share", "overlap_start", "overlap_end"),
        *("overlap", "min_share"),
    ),
    Way(
        "decontaminate_embedding",
        *("similar_benchmark", "similar_item", "similarity", "similar_start", "similar_end"),
        *("similar", "threshold"),
    ),
)
WORDS = "text"


@dataclass(frozen=True)
class Quote:
    """Where an item was met, in the words of a row."""

    id: str
    text: str
    is_cut: bool
    is_rejected: bool  # for this


@dataclass
class Overlap:
    """One benchmark item as it was met in rows."""

    num_rejected: int = 0
    num_below: int = 0  # rows with too little of it to be rejected for it
    max_share: float = 0.0
    best: tuple[bool, float, str, int] | None = None  # rejected, score, shard, number of the row that shows it best
    quote: Quote | None = None


Overlaps = dict[tuple[str, str, str], Overlap]  # by kind of stage, benchmark, item


def floor_of(way: Way, stages: Sequence[Mapping[str, Any]]) -> float:
    """The score from which a row is told of."""
    found = [float(s[way.threshold]) for s in stages if s.get("kind") == way.kind and way.threshold in s]
    return min(found) - NEAR if way.is_measured and found else 0.0


def reasons_of(way: Way, stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What rows are rejected as that are refused in this way."""
    return [f"{s.get('name') or way.kind}:{way.reason}" for s in stages if s.get("kind") == way.kind]


def count(overlaps: Overlaps, way: Way, stages: Sequence[Mapping[str, Any]], table: pa.Table, shard: str) -> None:
    """Add the rows of a shard, of which `table` holds the columns of `way`, and `reject` unless all were kept."""
    floor = floor_of(way, stages)
    score = table.column(way.score)
    is_rejected = pa.array(np.zeros(table.num_rows, bool))
    if REJECT.name in table.schema.names:  # a row with some overlap may have been rejected for another reason
        reasons = table.column(REJECT.name).combine_chunks()
        is_rejected = pc.fill_null(pc.is_in(reasons, pa.array(reasons_of(way, stages), pa.string())), False)
    told = pc.or_(is_rejected, pc.fill_null(pc.greater_equal(score, floor), False).combine_chunks())
    told = pc.and_(told, table.column(way.item).is_valid().combine_chunks())
    rows = np.flatnonzero(told.to_numpy(zero_copy_only=False))
    met = table.take(rows)
    columns = [met.column(name).to_pylist() for name in way.columns]
    for row, benchmark, item, share, refused in zip(rows.tolist(), *columns, is_rejected.take(rows).to_pylist()):
        found = overlaps.setdefault((way.kind, benchmark or "", item), Overlap())
        found.num_rejected += refused
        found.num_below += not refused
        found.max_share = max(found.max_share, share or 0.0)
        if found.best is None or (refused, share) > found.best[:2]:
            found.best = refused, share, shard, row


def ranked(overlaps: Overlaps, kind: str) -> dict[str, list[tuple[str, Overlap]]]:
    """Items by benchmark, those that were met most first."""
    found: dict[str, list[tuple[str, Overlap]]] = {}
    for (way, benchmark, item), overlap in overlaps.items():
        if way == kind:
            found.setdefault(benchmark, []).append((item, overlap))
    for items in found.values():
        items.sort(key=lambda i: (-i[1].num_rejected, -i[1].num_below, i[0]))
    return dict(sorted(found.items()))


def look_up(store: Store, overlaps: Overlaps, stages: Sequence[Mapping[str, Any]]) -> None:
    """Give the items that will be listed the words in which they were met; a shard that cannot be read has none.

    Reads a few columns of at most MAX_QUOTES shards.
    """
    left = MAX_QUOTES
    for way in WAYS:
        column = next((s.get("column") for s in stages if s.get("kind") == way.kind), None) or WORDS
        for items in ranked(overlaps, way.kind).values():
            for _, overlap in items[: min(MAX_ITEMS, left)]:
                left -= 1
                overlap.quote = _quote(store, overlap, way, column)


def _quote(store: Store, overlap: Overlap, way: Way, column: str) -> Quote | None:
    assert overlap.best is not None
    is_rejected, _, shard, row = overlap.best
    wanted = ["id", column, way.start, way.end]
    try:
        with store.open(shard) as source, open_parquet(source) as file:
            if not set(wanted) <= set(file.schema_arrow.names):
                return None
            found = columns_of(file, wanted).slice(row, 1).to_pylist()[0]
    except (pa.ArrowInvalid, OSError, IndexError):
        return None  # told as unreadable by those who count
    words = " ".join((found[column] or "")[found[way.start] or 0 : found[way.end] or 0].split())
    is_cut = len(words) > MAX_QUOTED
    return Quote(found["id"], words[:MAX_QUOTED], is_cut, is_rejected)
