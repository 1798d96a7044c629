"""Benchmark items that rows hold: counted over a sample of lots, with the words of a row for frequent items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_reading import UnreadableShard, read_shard
from gristmill.records.schema import REJECT
from gristmill.records.stores.contract import Store

MAX_ITEMS = 12  # listed per benchmark
MAX_QUOTES = 96  # rows whose words are read, in all
MAX_QUOTED = 240  # characters of a quote
NEAR = 0.1  # below the threshold of a cosine: every row has a nearest item, and most are far away


@dataclass(frozen=True)
class Way:
    """How a kind of stage records benchmark hits: the columns of its evidence, and the reason of its rejects."""

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
        """Whether every row has a score, so that only scores near the threshold count."""
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
    """The words of a row that hold an item."""

    id: str
    text: str
    is_cut: bool
    is_rejected: bool  # for this hit


@dataclass
class Overlap:
    """One benchmark item and the rows that hold it."""

    num_rejected: int = 0
    num_below: int = 0  # rows below the threshold, not rejected for it
    max_share: float = 0.0
    best: tuple[bool, float, str, int] | None = None  # (is rejected, score, shard, row) with the largest score
    quote: Quote | None = None


Overlaps = dict[tuple[str, str, str], Overlap]  # by kind of stage, benchmark, item


def floor_of(way: Way, stages: Sequence[Mapping[str, Any]]) -> float:
    """The least score that counts."""
    thresholds = [float(s[way.threshold]) for s in stages if s.get("kind") == way.kind and way.threshold in s]
    return min(thresholds) - NEAR if way.is_measured and thresholds else 0.0


def reasons_of(way: Way, stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The reject reasons of stages of this kind."""
    return [f"{s.get('name') or way.kind}:{way.reason}" for s in stages if s.get("kind") == way.kind]


def count(overlaps: Overlaps, way: Way, stages: Sequence[Mapping[str, Any]], table: pa.Table, shard: str) -> None:
    """Add the rows of a shard: `table` holds the columns of `way`, and `reject` where rows were rejected."""
    floor = floor_of(way, stages)
    score = table.column(way.score)
    is_rejected = pa.array(np.zeros(table.num_rows, bool))
    if REJECT.name in table.schema.names:  # a row with some overlap may have been rejected for another reason
        reasons = table.column(REJECT.name).combine_chunks()
        is_rejected = pc.fill_null(pc.is_in(reasons, pa.array(reasons_of(way, stages), pa.string())), False)
    counts = pc.or_(is_rejected, pc.fill_null(pc.greater_equal(score, floor), False).combine_chunks())
    counts = pc.and_(counts, table.column(way.item).is_valid().combine_chunks())
    rows = np.flatnonzero(counts.to_numpy(zero_copy_only=False))
    hits = table.take(rows)
    columns = [hits.column(name).to_pylist() for name in way.columns]
    for row, benchmark, item, share, rejected in zip(rows.tolist(), *columns, is_rejected.take(rows).to_pylist()):
        overlap = overlaps.setdefault((way.kind, benchmark or "", item), Overlap())
        overlap.num_rejected += rejected
        overlap.num_below += not rejected
        overlap.max_share = max(overlap.max_share, share or 0.0)
        if overlap.best is None or (rejected, share) > overlap.best[:2]:
            overlap.best = rejected, share, shard, row


def ranked(overlaps: Overlaps, kind: str) -> dict[str, list[tuple[str, Overlap]]]:
    """Items by benchmark, the most frequent first."""
    by_benchmark: dict[str, list[tuple[str, Overlap]]] = {}
    for (way, benchmark, item), overlap in overlaps.items():
        if way == kind:
            by_benchmark.setdefault(benchmark, []).append((item, overlap))
    for items in by_benchmark.values():
        items.sort(key=lambda i: (-i[1].num_rejected, -i[1].num_below, i[0]))
    return dict(sorted(by_benchmark.items()))


def look_up(store: Store, overlaps: Overlaps, stages: Sequence[Mapping[str, Any]]) -> None:
    """Add quotes to the items that the page lists; none from a shard that cannot be read.

    Reads a few columns of at most MAX_QUOTES shards.
    """
    left = MAX_QUOTES
    wanted: list[tuple[Overlap, Way, str]] = []
    for way in WAYS:
        column = next((s.get("column") for s in stages if s.get("kind") == way.kind), None) or WORDS
        for items in ranked(overlaps, way.kind).values():
            listed = items[: min(MAX_ITEMS, left)]
            wanted += [(overlap, way, column) for _, overlap in listed]
            left -= len(listed)
    for (overlap, _, _), quote in zip(wanted, read_ahead(store, lambda entry: _quote(store, *entry), wanted)):
        overlap.quote = quote


def _quote(store: Store, overlap: Overlap, way: Way, column: str) -> Quote | None:
    assert overlap.best is not None
    is_rejected, _, shard, row = overlap.best
    wanted = ["id", column, way.start, way.end]
    try:
        table = read_shard(store, shard, wanted)
        if not set(wanted) <= set(table.schema.names):
            return None
        values = table.slice(row, 1).to_pylist()[0]
    except (UnreadableShard, IndexError):
        return None  # the sample lists it as unreadable
    words = " ".join((values[column] or "")[values[way.start] or 0 : values[way.end] or 0].split())
    is_cut = len(words) > MAX_QUOTED
    return Quote(values["id"], words[:MAX_QUOTED], is_cut, is_rejected)
