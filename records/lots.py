"""Where rows are born: the asks of a lot with their ids and seeds, from literals alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from gristmill.records.ids import lot_ids, lot_seeds
from gristmill.records.schema import ask_schema, clean


@dataclass(frozen=True)
class Plan:
    """Everything that a lot's asks are made from, apart from the source's rows."""

    fingerprint: str
    lot_size: int
    num_asks: int | None  # None: without end (a source that cycles)
    num_source_rows: int
    generator: str
    model: str | None = None
    method: str | None = None
    carry: tuple[str, ...] = ()
    generation: int = 0
    origin: str = "synthetic"
    round_lots: int | None = None  # lots of a round: those of the next are born when these are committed

    @property
    def num_lots(self) -> int | None:
        return None if self.num_asks is None else -(-self.num_asks // self.lot_size)

    def span(self, lot: int) -> tuple[int, int]:
        """Ask numbers [start, stop) of a lot."""
        start = lot * self.lot_size
        stop = start + self.lot_size
        return start, stop if self.num_asks is None else min(stop, self.num_asks)

    def is_ready(self, lot: int, num_committed: int) -> bool:
        """Whether all that the asks of a lot are made of is there."""
        return self.round_lots is None or num_committed >= lot // self.round_lots * self.round_lots

    @property
    def carried(self) -> list[pa.Field]:
        return [pa.field(name, pa.string()) for name in self.carry]


@dataclass(frozen=True)
class SourceLot:
    """A lot as it travels to the worker that takes it first: its source rows, from which its asks follow.

    The driver of a thousand engines has better things to do than to hash row ids.
    """

    plan: Plan
    lot: int
    rows: list[tuple[str, str]]  # (source id, JSON text)

    @property
    def nbytes(self) -> int:
        """About what it takes as a message."""
        return sum([len(text) for _, text in self.rows]) + 64 * len(self.rows)


class AskSource(Protocol):
    """What asks are made from: a source, or one that grows with the run (see gristmill.records.rounds)."""

    def ask_rows(self, start: int, stop: int, num_rows: int) -> list[tuple[str, str]]:
        """(source id, JSON text) of asks [start, stop), by going round `num_rows` rows."""


def source_lot(plan: Plan, source: AskSource, lot: int) -> SourceLot:
    """A lot before its asks are made.

    Ask i reads source row i modulo the number of source rows, so every row is asked once before any is asked twice.
    """
    return SourceLot(plan, lot, source.ask_rows(*plan.span(lot), plan.num_source_rows))


def ask_batch(lot: SourceLot | pa.RecordBatch) -> pa.RecordBatch:
    """The rows of a lot, which are made here if it has none yet."""
    return _asks(lot.plan, lot.lot, lot.rows) if isinstance(lot, SourceLot) else lot


def asks(plan: Plan, source: AskSource, lot: int) -> pa.RecordBatch:
    """The asks of one lot, with the schema `gristmill.records.schema.ask_schema(plan.carried)`."""
    return ask_batch(source_lot(plan, source, lot))


def _asks(plan: Plan, lot: int, rows: Sequence[tuple[str, str]]) -> pa.RecordBatch:
    count = len(rows)
    texts = [text for _, text in rows]
    constant = {
        "lot": pa.array(np.full(count, lot, np.int64)),
        "origin": _same(plan.origin, count),
        "generation": pa.array(np.full(count, plan.generation, np.int32)),
        "generator": _same(plan.generator, count),
        "model": _same(plan.model, count),
        "recipe": _same(plan.fingerprint, count),
        "method": _same(plan.method, count),
    }
    columns = {
        **constant,
        "id": pa.array(lot_ids(plan.fingerprint, plan.generation, lot, count)),
        "row": pa.array(np.arange(count, dtype=np.int32)),
        "seed": pa.array(lot_seeds(plan.fingerprint, plan.generation, lot, count)),
        "source_id": _texts([source_id for source_id, _ in rows]),
        "ask": pa.array(texts, pa.string()),
        **_carried(plan.carry, texts),
    }
    schema = ask_schema(plan.carried)
    arrays = [columns[f.name] if f.name in columns else pa.nulls(count, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _texts(values: list[str]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([clean(value) for value in values], pa.string())


def _same(value: str | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.string()) if value is None else pa.repeat(pa.scalar(value), count)


def _carried(names: Sequence[str], texts: Sequence[str]) -> dict[str, pa.Array]:
    if not names:
        return {}
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    for line in texts:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None  # the generator rejects it
        for name in names:
            value = row.get(name) if isinstance(row, dict) else None
            is_plain = value is None or isinstance(value, str)
            text = value if is_plain else json.dumps(value, ensure_ascii=False)
            columns[name].append(clean(text) if text is not None else None)
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}
