"""A plug-in generator whose settings are free-form tables, as those of an engine behind an API are."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill import Generator
from gristmill.generators.contract import GeneratedRow, fill
from gristmill.records.spec import literals


@dataclass(frozen=True)
class FreeFormSpec:
    """Settings that the plug-in passes on as they are."""

    engine: dict[str, Any] = field(default_factory=dict)
    runtime_env: dict[str, Any] = field(default_factory=dict)
    url: str = ""


class FreeForm(Generator):
    """Writes "ok" in each row."""

    Spec = FreeFormSpec

    def __init__(self, spec: FreeFormSpec) -> None:
        self.spec = spec

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field("text", pa.string())]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "spec": literals(self.spec)}

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        return fill(asks, self.payload, [GeneratedRow({"text": "ok"}, "stop")] * asks.num_rows)
