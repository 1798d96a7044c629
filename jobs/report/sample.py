"""Counts that only the rows can give, read column by column from a bounded sample of lots."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs.report.overlaps import WAYS, Overlaps, count, look_up
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_names import KEPT, REJECTED
from gristmill.records.output.shard_reading import UnreadableShard, name_of, read_shard
from gristmill.records.output.summary import TOKENS_KEPT
from gristmill.records.schema import REJECT, TOKENS_REASONING
from gristmill.records.stores.contract import Store

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MAX_LOTS = 200
MAX_ROWS = 2_000_000
DUPLICATE_OF = "duplicate_of"
CALLS = ("turn", "tokens_in", "tokens_out")  # fields of the column `turns` that are read


@dataclass
class Calls:
    """Calls of one turn of a method, and their tokens."""

    num: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass
class Sample:
    """Counts over the lots that were read."""

    num_lots: int = 0
    num_lots_of: int = 0
    num_asks: int = 0
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # kept tokens of kept rows
    # Of kept rows: tokens before and after the end of the reasoning, in all their calls.
    reasoning: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    answers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rejected_tokens: Counter[str] = field(default_factory=Counter)  # tokens_out by reason
    duplicates: Counter[str] = field(default_factory=Counter)  # by id of the kept row: rows that duplicate it
    overlaps: Overlaps = field(default_factory=dict)
    has_dedup: bool = False
    ways: set[str] = field(default_factory=set)  # kinds of stages that searched for benchmark items
    unreadable: list[str] = field(default_factory=list)
    lots: list[int] = field(default_factory=list)
    num_rejected: Counter[str] = field(default_factory=Counter)  # by reason
    first_rejected: dict[str, tuple[int, int]] = field(default_factory=dict)  # by reason: (lot, row of its shard)
    calls: dict[str, Calls] = field(default_factory=dict)  # by turn, in the order of the sample
    num_called: int = 0  # rows that record their calls

    @property
    def is_whole(self) -> bool:
        return self.num_lots == self.num_lots_of and not self.unreadable


def spread(num_lots: int, num_wanted: int) -> list[int]:
    """`num_wanted` lots of 0..num_lots-1, evenly spread, including the first and the last."""
    if num_wanted >= num_lots:
        return list(range(num_lots))
    if num_wanted <= 1:
        return list(range(min(num_lots, num_wanted)))
    return [round(i * (num_lots - 1) / (num_wanted - 1)) for i in range(num_wanted)]


def read_sample(store: Store, num_lots: int, num_asks: int, stages: Sequence[Mapping[str, Any]] = ()) -> Sample:
    """Read at most MAX_LOTS of the first `num_lots` lots, and about MAX_ROWS rows.

    `stages` are the recipe's tables; without them no row counts as rejected for a benchmark.
    """
    lots = spread(num_lots, max(1, min(MAX_LOTS, MAX_ROWS * num_lots // max(1, num_asks))))
    sample = Sample(len(lots), num_lots, lots=lots)
    lengths, both = [], []
    names = [(folder, lot) for lot in lots for folder in (KEPT, REJECTED)]
    for (folder, lot), answer in zip(names, read_ahead(store, lambda shard: _columns(store, *shard), names)):
        if isinstance(answer, str):
            if answer not in sample.unreadable:  # a kept shard that cannot be read names no rejected shard
                sample.unreadable.append(answer)
        elif answer is not None:
            name, table = answer
            sample.num_asks += table.num_rows
            _count(sample, table, name, stages, lot)
            if folder == KEPT:
                counted = TOKENS_KEPT if TOKENS_KEPT in table.schema.names else "tokens_out"
                lengths.append(table.column(counted).drop_null().to_numpy())
                if TOKENS_REASONING.name in table.schema.names:
                    both.append(_reasoning_and_answer(table))
    if lengths:
        sample.lengths = np.concatenate(lengths).astype(np.int64)
    if both:
        sample.reasoning, sample.answers = np.concatenate(both, axis=1)
    look_up(store, sample.overlaps, stages)
    return sample


def _reasoning_and_answer(table: pa.Table) -> np.ndarray:
    """Tokens of the reasoning and of the answers, int64 (2, rows)."""
    names = (TOKENS_REASONING.name, "tokens_out")
    reasoning, tokens = (table.column(name).fill_null(0).to_numpy().astype(np.int64) for name in names)
    return np.stack([reasoning, tokens - reasoning])


def _columns(store: Store, folder: str, lot: int) -> tuple[str, pa.Table] | str | None:
    """The name and the counted columns; None where there is no shard, and name and error of an unreadable one."""
    wanted = [
        "tokens_out",
        *(c for way in WAYS for c in way.columns),
        *((TOKENS_KEPT, TOKENS_REASONING.name) if folder == KEPT else (REJECT.name, DUPLICATE_OF)),
    ]

    def columns(file: "pq.ParquetFile") -> list[str]:
        paths = [file.schema.column(number).path for number in range(len(file.schema))]
        calls = [p for p in paths if p.startswith("turns.") and p.rpartition(".")[2] in CALLS]
        present = {*file.schema_arrow.names, *calls}
        names = [*wanted, *calls, *([DUPLICATE_OF] if folder == KEPT else [])]
        return [n for n in names if n in present]

    try:
        name = name_of(store, folder, lot)
        return (name, read_shard(store, name, columns)) if name else None
    except UnreadableShard as error:
        return f"{error.name}: {error.reason}"


def _count(sample: Sample, table: pa.Table, shard: str, stages: Sequence[Mapping[str, Any]], lot: int) -> None:
    names = table.schema.names
    if "turns" in names:
        _count_calls(sample, table.column("turns").combine_chunks())
    if REJECT.name in names:
        for row, reason in enumerate(table.column(REJECT.name).to_pylist()):
            sample.num_rejected[reason] += 1
            sample.first_rejected.setdefault(reason, (lot, row))
        sums = table.group_by(REJECT.name).aggregate([("tokens_out", "sum")])
        for reason, tokens in zip(sums.column(REJECT.name).to_pylist(), sums.column("tokens_out_sum").to_pylist()):
            sample.rejected_tokens[reason] += tokens or 0
    if DUPLICATE_OF in names:
        sample.has_dedup = True
        for value in table.column(DUPLICATE_OF).drop_null().value_counts().to_pylist():
            sample.duplicates[value["values"]] += value["counts"]
    for way in WAYS:
        if set(way.columns) <= set(names):
            sample.ways.add(way.kind)
            count(sample.overlaps, way, stages, table, shard)


def _count_calls(sample: Sample, turns: pa.ListArray) -> None:
    sample.num_called += len(turns) - turns.null_count
    inner = turns.flatten()
    if pa.types.is_struct(inner.type) and {f.name for f in inner.type} >= set(CALLS):
        calls = pa.table([pc.struct_field(inner, name) for name in CALLS], list(CALLS))
        sums = calls.group_by("turn", use_threads=False).aggregate(
            [("turn", "count"), *((n, "sum") for n in CALLS[1:])]
        )
        for turn in sums.to_pylist():
            counts = sample.calls.setdefault(turn["turn"] or "", Calls())
            counts.num += turn["turn_count"]
            counts.tokens_in += turn["tokens_in_sum"] or 0
            counts.tokens_out += turn["tokens_out_sum"] or 0
