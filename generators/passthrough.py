"""`kind = "passthrough"`: the rows of the source as they are, no model asked.

To verify, decontaminate, deduplicate or balance a corpus that exists already, and to see what gates do to rows that are
known to be right or wrong.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.generators.contract import GeneratedRow, Generator, fields_of, fill
from gristmill.records.schema import ASK, REJECT, clean
from gristmill.records.spec import literals


@dataclass(frozen=True)
class PassthroughSpec:
    """Settings of `passthrough`."""

    # source columns that become payload, as text (anything else as JSON); a row must have all
    columns: tuple[str, ...] = ("text",)
    lists: tuple[str, ...] = ()  # source columns that become lists of texts; a row must have all
    origin: Literal["real", "synthetic"] = "real"  # value of the `origin` column, which caps on real rows read

    def __post_init__(self) -> None:
        names = (*self.columns, *self.lists)
        if not names:
            raise ValueError("columns must name at least one column of the source")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"column '{name}' is named twice")


class Passthrough(Generator):
    """Rejects `generator:malformed_ask` (no JSON object), `missing_field`, `not_a_list` and `nested_too_deeply`."""

    kind: ClassVar[str] = "passthrough"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = PassthroughSpec
    spec: PassthroughSpec

    def __init__(self, spec: PassthroughSpec) -> None:
        self.spec = spec
        self._num_rows = 0

    @property
    def payload(self) -> list[pa.Field]:
        texts = [pa.field(name, pa.string()) for name in self.spec.columns]
        return [*texts, *(pa.field(name, pa.list_(pa.string())) for name in self.spec.lists)]

    @property
    def origin(self) -> Literal["real", "synthetic"]:
        return self.spec.origin

    @property
    def needs(self) -> Needs:
        return Needs(pooled=False)

    @property
    def progress(self) -> tuple[int, int]:
        return self._num_rows, 0

    def fields_read(self) -> list[str]:
        return [*self.spec.columns, *self.spec.lists]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), **literals(self.spec)}

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        dead = asks.column(REJECT.name).is_valid().to_pylist()
        rows = [None if d else self._row(ask) for ask, d in zip(asks.column(ASK.name).to_pylist(), dead)]
        self._num_rows += len(rows) - sum(dead)
        return fill(asks, self.payload, rows)

    def _row(self, ask: str | None) -> GeneratedRow:
        fields = fields_of(ask)
        if fields is None:
            return GeneratedRow(reason="malformed_ask")
        if any(name not in fields for name in self.fields_read()):
            return GeneratedRow(reason="missing_field")
        if any(not isinstance(fields[name], list | None) for name in self.spec.lists):
            return GeneratedRow(reason="not_a_list")
        try:
            payload: dict[str, Any] = {name: _text(fields[name]) for name in self.spec.columns}
            for name in self.spec.lists:
                payload[name] = None if fields[name] is None else [_text(value) for value in fields[name]]
        except RecursionError:
            return GeneratedRow(reason="nested_too_deeply")
        return GeneratedRow(payload, finish="stop")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
