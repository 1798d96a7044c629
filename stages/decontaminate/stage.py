"""What the two stages share that compare rows with benchmark items: the evidence, and an index open in the worker."""

from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.decontaminate.benchmarks import digest, load


class ItemIndex(Protocol):
    """The texts of all benchmarks, with the name of its benchmark and the id of its item for each."""

    benchmarks: pa.Array
    items: pa.Array


class BenchmarkStage(Stage):
    """Adds the benchmark item nearest to each row, even one too far to reject: benchmark, item, score and place."""

    spec: Any
    prefix: ClassVar[str]  # of the columns of the evidence
    score: ClassVar[str]  # the column of the score
    reason: ClassVar[str]  # of a reject

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._index: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def build_index(self) -> ItemIndex:
        raise NotImplementedError

    def can_match(self, text: str) -> bool:
        """Whether a benchmark text is long enough to be looked for."""
        raise NotImplementedError

    def columns(self) -> list[pa.Field]:
        return [
            pa.field(f"{self.prefix}_benchmark", pa.string()),
            pa.field(f"{self.prefix}_item", pa.string()),
            pa.field(self.score, pa.float32()),
            pa.field(f"{self.prefix}_start", pa.int32()),
            pa.field(f"{self.prefix}_end", pa.int32()),
        ]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "benchmarks": [digest(benchmark) for benchmark in self.spec.benchmarks]}

    def check(self) -> None:
        for benchmark in self.spec.benchmarks:
            if not any(self.can_match(text) for _, text in load(benchmark)):
                raise UserError(
                    f"benchmark '{benchmark.name}': every text is shorter than min_words = {self.spec.min_words}"
                )

    def open(self) -> None:
        if self._index is None:
            self._index = self.build_index()

    def close(self) -> None:
        self._index = None

    def findings(self, scan: tuple[np.ndarray, np.ndarray, np.ndarray], threshold: float) -> Findings:
        """Evidence and verdicts from a scan of the index, an entry a row: the number of the nearest text or -1, the
        score, and (start, end) in characters of the row. A score of at least `threshold` rejects the row.
        """
        unit, score, span = scan
        is_null = unit < 0
        units = pa.array(unit, mask=is_null)
        columns = {
            f"{self.prefix}_benchmark": self._index.benchmarks.take(units),
            f"{self.prefix}_item": self._index.items.take(units),
            self.score: pa.array(score.astype(np.float32), mask=is_null),
            f"{self.prefix}_start": pa.array(span[:, 0], mask=is_null),
            f"{self.prefix}_end": pa.array(span[:, 1], mask=is_null),
        }
        is_rejected = pa.array(score >= threshold)
        return Findings(columns, pc.if_else(is_rejected, pa.scalar(self.reason), pa.scalar(None, pa.string())))
