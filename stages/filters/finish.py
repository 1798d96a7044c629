"""Rejects rows whose generation did not end by itself."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.stages.contract import Findings, Stage


@dataclass(frozen=True)
class FinishSpec:
    """Keys of the stage `finish`."""

    # Values of the column `finish` that pass, as vLLM names them: "stop", "length", "abort", ...
    allow: tuple[str, ...] = ("stop",)

    def __post_init__(self) -> None:
        if not self.allow:
            raise ValueError("allow must name at least one finish, e.g. 'stop'")


class Finish(Stage):
    """The reason is the finish itself: "finish:length" is a truncated row, "finish:unknown" a row without a finish."""

    kind: ClassVar[str] = "finish"
    Spec: ClassVar[type] = FinishSpec
    spec: FinishSpec

    def reads(self) -> list[str]:
        return ["finish"]

    def find(self, rows: pa.RecordBatch) -> Findings:
        finish = pc.fill_null(rows.column("finish").cast(pa.string()), "unknown")
        passes = pc.is_in(finish, value_set=pa.array(self.spec.allow, pa.string()))
        return Findings(reasons=pc.if_else(passes, pa.scalar(None, pa.string()), finish))
