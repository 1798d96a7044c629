"""Several generators of one run: each makes the rows that its name is in, and leaves the others as they are.

records/division.py assigns the asks, before any generator sees them. Each generator with an engine has its own pool.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.engines.needs import Needs
from gristmill.engines.throttle import Throttle
from gristmill.generators.contract import Generator
from gristmill.generators.text.reply_columns import turns_field
from gristmill.records.division import Author, Division
from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT, set_column

FILLED = ("finish", "tokens_in", "tokens_out", REJECT.name)  # columns that `make` fills beside the payload


class GeneratorShare(Generator):
    """One of several generators, with the payload columns of all: those that it has not are null in its rows."""

    def __init__(self, generator: Generator, author: Author, payload: Sequence[pa.Field]) -> None:
        self.generator, self.author, self.name = generator, author, author.generator
        self.kind = generator.kind  # type: ignore[misc]
        self.spec, self._payload = generator.spec, list(payload)
        self._names = {field.name for field in payload}

    @property
    def payload(self) -> list[pa.Field]:
        return self._payload

    @property
    def model(self) -> str | None:
        return self.generator.model

    @property
    def method(self) -> str | None:
        return self.generator.method

    @property
    def needs(self) -> Needs:
        return self.generator.needs

    @property
    def is_repeatable(self) -> bool:
        return self.generator.is_repeatable

    @property
    def is_paid(self) -> bool:
        return self.generator.is_paid

    @property
    def paid(self) -> float:
        return self.generator.paid

    @property
    def engine_key(self) -> str | None:
        return self.generator.engine_key

    def fields_read(self) -> list[str]:
        return self.generator.fields_read()

    def identity(self) -> dict[str, Any]:
        author = self.author
        when = {"when": list(author.when)} if author.when else {}
        return {**self.generator.identity(), "name": author.generator, "share": author.share, **when}

    def check(self) -> None:
        self.generator.check()

    def open(self) -> None:
        self.generator.open()

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        rows, batch = self._rows(asks), with_columns(asks, self._payload)
        return self._filled(batch, rows, await self.generator.make(self._part(asks, rows))) if len(rows) else batch

    def refuse(self, asks: pa.RecordBatch, reason: str) -> pa.RecordBatch:
        """`asks` with `reject` set in the living rows of this generator."""
        rows, batch = self._rows(asks), with_columns(asks, self._payload)
        return self._filled(batch, rows, self.generator.refuse(self._part(asks, rows), reason)) if len(rows) else batch

    def _rows(self, asks: pa.RecordBatch) -> np.ndarray:
        """int64: the places of the living rows that this generator makes."""
        are_own = pc.and_(pc.equal(asks.column("generator"), self.name), asks.column(REJECT.name).is_null())
        return np.flatnonzero(are_own.to_numpy(zero_copy_only=False))

    def _part(self, asks: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
        """The asks at `rows`, without the payload of generators that came before."""
        return asks.select([name for name in asks.schema.names if name not in self._names]).take(pa.array(rows))

    def _filled(self, batch: pa.RecordBatch, rows: np.ndarray, part: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` with the rows at `rows` taken from `part`, in the columns that the generator fills."""
        places = np.arange(batch.num_rows)
        places[rows] = batch.num_rows + np.arange(part.num_rows)
        for name in [*FILLED, *(field.name for field in self.generator.payload)]:
            field = batch.schema.field(name)
            both = pa.concat_arrays([batch.column(name), part.column(name).cast(field.type)])
            batch = set_column(batch, field, both.take(pa.array(places)))
        return batch

    @property
    def progress(self) -> tuple[int, int]:
        return self.generator.progress

    @property
    def throttle(self) -> Throttle | None:
        return self.generator.throttle

    async def facts(self) -> dict[str, Any]:
        return await self.generator.facts()

    def close(self) -> None:
        self.generator.close()


class Several(Generator):
    """The generators of a recipe with [[generators]], as one. Those without a pool make their rows one by one."""

    kind = "several"

    def __init__(self, generators: Sequence[Generator], division: Division) -> None:
        self.division = division
        payload = union({author.generator: g.payload for author, g in zip(division.authors, generators)})
        self.shares = [GeneratorShare(g, author, payload) for g, author in zip(generators, division.authors)]
        self.spec = None

    @property
    def payload(self) -> list[pa.Field]:
        return self.shares[0].payload

    @property
    def model(self) -> str | None:
        return ", ".join(dict.fromkeys(share.model or share.name for share in self.shares))

    @property
    def method(self) -> str | None:
        return next((share.method for share in self.shares if share.method), None)

    @property
    def needs(self) -> Needs:
        return Needs(pooled=bool(self.pooled))

    @property
    def pooled(self) -> dict[str, Generator]:
        return {share.name: share for share in self.shares if share.needs.pooled}

    @property
    def unpooled(self) -> Generator | None:
        shares = [share for share in self.shares if not share.needs.pooled]
        if not shares:
            return None
        part = Several([share.generator for share in shares], self.division)
        part.shares, part.pins = shares, self.pins
        return part

    @property
    def parts(self) -> list[Generator]:
        return [share.generator for share in self.shares]

    @property
    def is_repeatable(self) -> bool:
        return all(share.is_repeatable for share in self.shares)

    def fields_read(self) -> list[str]:
        column = [self.division.column] if self.division.column else []
        return list(dict.fromkeys([*column, *(name for share in self.shares for name in share.fields_read())]))

    def check(self) -> None:
        for share in self.shares:
            share.check()

    def open(self) -> None:
        for share in self.shares:
            share.open()

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        for share in self.shares:
            asks = await share.make(asks)
        return asks

    def close(self) -> None:
        for share in self.shares:
            share.close()


TURN_TYPES = {turns_field(has_reasoning).type for has_reasoning in (False, True)}


def union(payloads: Mapping[str, Sequence[pa.Field]]) -> list[pa.Field]:
    """The payload columns of all generators, in order; `turns` have a reasoning if those of one generator have it.

    Raises UserError where a column has two types.
    """
    fields: dict[str, tuple[pa.Field, str]] = {}
    for name, payload in payloads.items():
        for field in payload:
            column, first = fields.setdefault(field.name, (field.with_nullable(True), name))
            if {column.type, field.type} == TURN_TYPES:
                fields[field.name] = (turns_field(has_reasoning=True), first)
            elif column.type != field.type:
                raise UserError(
                    f"generators: '{first}' makes the column '{field.name}' as {column.type}, and '{name}' as "
                    f"{field.type}; rows of one run have one type for a column"
                )
    return [field for field, _ in fields.values()]


def with_columns(batch: pa.RecordBatch, fields: Sequence[pa.Field]) -> pa.RecordBatch:
    """`batch` with a column of nulls for each of `fields` that it lacks."""
    for field in fields:
        if field.name not in batch.schema.names:
            batch = set_column(batch, field, pa.nulls(batch.num_rows, field.type))
    return batch
