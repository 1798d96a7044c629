"""The generator contract: a lot's asks in, the same rows with payload, finish and token counts out.

A generator lives in a pool of long-lived actors; `needs` states what a replica takes. It adds, drops and reorders no
row. An ask that cannot be served keeps its row, with `reject` "generator:reason" and a null payload. The laws are
checked by gristmill.testing.check_generator.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.engines.throttle import Throttle
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.pins import Pins
from gristmill.records.schema import REJECT, clean, set_column


class Generator(ABC):
    """Base of every generator. The constructor takes the spec and imports nothing heavy; `open` does."""

    kind: ClassVar[str]
    revision: ClassVar[int] = 1  # raised whenever the same spec, asks and seeds get other rows; part of the identity
    Spec: ClassVar[type]
    takes_method: ClassVar[bool] = False  # whether the constructor takes (spec, method), as in text generators, or spec
    spec: Any
    pins: Pins | None = None  # the inputs of the run, which `open` must find unchanged; set by the compiler
    answers: AnswerFolder | None = (
        None  # where a generator whose calls are paid for keeps answers; set when a run starts
    )

    @property
    @abstractmethod
    def payload(self) -> list[pa.Field]:
        """The payload columns, which a recipe knows before anything starts."""

    @property
    def model(self) -> str | None:
        """Value of the `model` column: a literal of the recipe, never a path."""
        return None

    @property
    def method(self) -> str | None:
        """Value of the `method` column."""
        return None

    @property
    def origin(self) -> Literal["real", "synthetic"]:
        """Value of the `origin` column."""
        return "synthetic"

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def is_repeatable(self) -> bool:
        """Whether the same spec, asks and seeds give the same rows in any batch. GPUs alone do not promise it."""
        return not self.needs.num_gpus

    @property
    def is_paid(self) -> bool:
        """Whether its engine is paid by the call and may answer otherwise another time. Rows then have `cost`."""
        return False

    @property
    def paid(self) -> float:
        """Money that this replica has paid for calls, lots in flight included, in the currency of the run."""
        return 0.0

    @property
    def engine_key(self) -> str | None:
        """Names the engine of an open replica, for another part with the same key to take over; None: none may."""
        return None

    @property
    def parts(self) -> "list[Generator]":
        """The generators of a run: this one, or those of [[generators]]."""
        return [self]

    @property
    def pooled(self) -> "dict[str, Generator]":
        """Those that run in pools, by the pool's name."""
        return {"generator": self} if self.needs.pooled else {}

    @property
    def unpooled(self) -> "Generator | None":
        """What makes rows in CPU workers."""
        return None if self.needs.pooled else self

    def fields_read(self) -> list[str]:
        """Columns that the source must have."""
        return []

    def identity(self) -> dict[str, Any]:
        """Literals that change rows, for the fingerprint: revision, prompts, model digest, sampling."""
        return {"revision": self.revision}

    def check(self) -> None:  # noqa: B027
        """Preflight on the driver. Raises UserError when the model or a file is out of reach. Starts no engine."""

    def open(self) -> None:  # noqa: B027
        """Load the engine, once per replica."""

    @abstractmethod
    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows in the same order, with payload, finish and tokens filled. Several calls may run at once.

        Raises only when the engine itself fails; the failure of a single ask is a reject.
        """

    def refuse(self, asks: pa.RecordBatch, reason: str) -> pa.RecordBatch:
        """`asks` with `reject` set to `reason` in every row that has none."""
        dead = asks.column(REJECT.name).is_valid().to_pylist()
        return fill(asks, self.payload, [None if is_dead else GeneratedRow(reason=reason) for is_dead in dead])

    @property
    def progress(self) -> tuple[int, int]:
        """(asks, tokens_out) that this replica has finished, for displays; lots in flight count."""
        return 0, 0

    @property
    def throttle(self) -> Throttle | None:
        """Counts the asks of an open generator that works on many at once; None for any other."""
        return None

    async def facts(self) -> dict[str, Any]:
        """What a manifest records of an open engine, as literals: sizes, and what a probe has shown."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Free the device before the actor is killed. Safe when `open` never finished."""


@dataclass
class GeneratedRow:
    """A generated row: payload by column name, finish, tokens, or the reason for its reject."""

    payload: dict[str, Any] = field(default_factory=dict)
    finish: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    reason: str | None = None  # e.g. "context_length"; becomes "generator:context_length"


def fields_of(ask: str | None, names: Sequence[str] | None = None) -> dict[str, Any] | None:
    """The JSON object that an ask holds, cut to the keys `names`, null where it lacks one; None where it is none."""
    try:
        fields = json.loads(ask or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    return fields if names is None else {name: fields.get(name) for name in names}


def fill(
    asks: pa.RecordBatch, payload: Sequence[pa.Field], filled_rows: Sequence[GeneratedRow | None]
) -> pa.RecordBatch:
    """`asks` filled from `filled_rows`, whose entry is None for a row that was dead on arrival: it stays untouched."""
    assert len(filled_rows) == asks.num_rows
    rows = [m if m is not None else GeneratedRow(tokens_in=None, tokens_out=None) for m in filled_rows]  # type: ignore[arg-type]
    batch = asks
    for output_field in payload:
        values = [m.payload.get(output_field.name) for m in rows]
        if pa.types.is_string(output_field.type) or pa.types.is_nested(output_field.type):
            values = [clean_value(v) for v in values]
        column = pa.array(values, output_field.type)
        batch = set_column(batch, output_field, column)
    for name in ("finish", "tokens_in", "tokens_out"):
        output_field = asks.schema.field(name)
        batch = set_column(batch, output_field, pa.array([getattr(m, name) for m in rows], output_field.type))
    return _with_reasons(batch, [m.reason if m is not None else None for m in filled_rows])


def clean_value(value: Any) -> Any:
    """A payload value without lone surrogates, which Arrow rejects; also inside lists and structs."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_value(each) for each in value]
    return {name: clean_value(each) for name, each in value.items()} if isinstance(value, dict) else value


def fill_columns(
    asks: pa.RecordBatch, payload: Sequence[pa.Field], columns: Mapping[str, pa.Array], reasons: Sequence[str | None]
) -> pa.RecordBatch:
    """`asks` filled from whole payload columns, null where a row was dead on arrival or has a reason (`reasons[i]`)."""
    batch = asks
    for declared in payload:
        batch = set_column(batch, declared, columns[declared.name])
    dead = asks.column(REJECT.name).is_valid().to_pylist()
    finish = [None if is_dead or reason else "stop" for is_dead, reason in zip(dead, reasons)]
    batch = set_column(batch, asks.schema.field("finish"), pa.array(finish, pa.string()))
    for name in ("tokens_in", "tokens_out"):
        counts = pa.array([None if is_dead else 0 for is_dead in dead], pa.int32())
        batch = set_column(batch, asks.schema.field(name), counts)
    return _with_reasons(batch, reasons)


def _with_reasons(batch: pa.RecordBatch, reasons: Sequence[str | None]) -> pa.RecordBatch:
    old = batch.column(REJECT.name).to_pylist()
    reject = [o if o is not None or reason is None else f"generator:{reason}" for o, reason in zip(old, reasons)]
    return set_column(batch, REJECT, pa.array(reject, REJECT.type))
