"""The asks of a lot with their ids and seeds, made from literals alone. No other code makes rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from gristmill.records.division import Division
from gristmill.records.functions.contract import AskRows
from gristmill.records.ids import lot_ids, lot_seeds
from gristmill.records.schema import ask_schema, clean


@dataclass(frozen=True)
class Plan:
    """Everything that decides the asks of a lot, apart from the rows of the source."""

    fingerprint: str
    lot_size: int
    num_asks: int | None  # None: unlimited (a source that cycles)
    num_source_rows: int
    generator: str
    model: str | None = None
    method: str | None = None
    carry: tuple[str, ...] = ()
    generation: int = 0
    origin: str = "synthetic"
    round_lots: int | None = None  # lots of a round; the asks of the next round are made when these lots are committed
    division: Division | None = None  # among several generators; then each ask has the provenance of its own

    @property
    def num_lots(self) -> int | None:
        return None if self.num_asks is None else -(-self.num_asks // self.lot_size)

    def span(self, lot: int) -> tuple[int, int]:
        """The range of ask numbers [start, stop) of a lot."""
        start = lot * self.lot_size
        stop = start + self.lot_size
        return start, stop if self.num_asks is None else min(stop, self.num_asks)

    def is_ready(self, lot: int, num_committed: int) -> bool:
        """Whether all earlier rounds, whose rows the asks of this lot may use, are committed."""
        return self.round_lots is None or num_committed >= lot // self.round_lots * self.round_lots

    @property
    def carried(self) -> list[pa.Field]:
        return [pa.field(name, pa.string()) for name in self.carry]


@dataclass(frozen=True)
class SourceLot:
    """A lot before its asks are made: the plan and its source rows.

    A worker makes the asks: hashing the ids for a thousand engines is too much work for the driver.
    """

    plan: Plan
    lot: int
    rows: Sequence[tuple[str, str]]  # (source id, JSON text)

    @property
    def nbytes(self) -> int:
        """The approximate size as a message."""
        if isinstance(self.rows, AskRows):
            return self.rows.nbytes
        return sum([len(text) for _, text in self.rows]) + 64 * len(self.rows)


class AskSource(Protocol):
    """Rows to make asks from: a source, or a source that grows with the run (gristmill.records.rounds)."""

    def ask_rows(self, start: int, stop: int, num_rows: int) -> Sequence[tuple[str, str]]:
        """(source id, JSON text) of asks [start, stop), which cycle through `num_rows` rows."""


def source_lot(plan: Plan, source: AskSource, lot: int) -> SourceLot:
    """The source rows of a lot.

    Ask i reads source row i modulo the number of source rows, so each row is used once before any is used twice; with
    `source.together` it reads row i // samples.
    """
    return SourceLot(plan, lot, source.ask_rows(*plan.span(lot), plan.num_source_rows))


def ask_batch(lot: SourceLot | pa.RecordBatch) -> pa.RecordBatch:
    """The rows of a lot; the asks of a SourceLot are made here."""
    return _asks(lot.plan, lot.lot, lot.rows) if isinstance(lot, SourceLot) else lot


def asks(plan: Plan, source: AskSource, lot: int) -> pa.RecordBatch:
    """The asks of a lot, with the schema `gristmill.records.schema.ask_schema(plan.carried)`."""
    return ask_batch(source_lot(plan, source, lot))


def _asks(plan: Plan, lot: int, rows: Sequence[tuple[str, str]]) -> pa.RecordBatch:
    count = len(rows)
    texts = [text for _, text in rows]
    provenance = {
        "lot": pa.array(np.full(count, lot, np.int64)),
        "origin": _constant(plan.origin, count),
        "generation": pa.array(np.full(count, plan.generation, np.int32)),
        "generator": _constant(plan.generator, count),
        "model": _constant(plan.model, count),
        "recipe": _constant(plan.fingerprint, count),
        "method": _constant(plan.method, count),
    }
    seeds = lot_seeds(plan.fingerprint, plan.generation, lot, count)
    if plan.division:
        places = plan.division.choices(plan.span(lot)[0], plan.num_source_rows, seeds, texts)
        provenance |= plan.division.columns(places)
    columns = {
        **provenance,
        "id": pa.array(lot_ids(plan.fingerprint, plan.generation, lot, count)),
        "row": pa.array(np.arange(count, dtype=np.int32)),
        "seed": pa.array(seeds),
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


def _constant(value: str | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.string()) if value is None else pa.repeat(pa.scalar(value), count)


def _carried(names: Sequence[str], texts: Sequence[str]) -> dict[str, pa.Array]:
    if not names:
        return {}
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    for line in texts:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None  # the generator rejects this row
        for name in names:
            value = row.get(name) if isinstance(row, dict) else None
            is_plain = value is None or isinstance(value, str)
            text = value if is_plain else json.dumps(value, ensure_ascii=False)
            columns[name].append(clean(text) if text is not None else None)
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}
