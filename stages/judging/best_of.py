"""Best of k: of the samples of one source row that are alive, those with the best score are kept.

Rejection sampling as in Touvron et al. 2023 (Llama 2, arXiv 2307.09288, section 3.2.3), with any score that an earlier
stage gives, such as that of a judge. The samples may be of several generators.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.stages.contract import Findings, RunContext, Stage

NO_SCORE, WORSE = "no_score", "worse"


@dataclass(frozen=True)
class BestOfSpec:
    """Keys of the stage `best_of`."""

    score: str = "judge_score"  # Column with the score of a row, a number.
    keep: int = 1  # Number of rows that are kept of each source row.
    lowest: bool = False  # Whether the lowest score is the best, as of a perplexity.

    def __post_init__(self) -> None:
        if not self.score:
            raise ValueError("score must name a column")
        if self.keep < 1:
            raise ValueError("keep must be at least 1")


class BestOf(Stage):
    """Adds `NAME_rank` (int32, 1 for the best) and `NAME_size` (int32), the number of rows that are compared.

    Of equal scores the earlier row is the better. The samples of a row must lie in one lot: `source.together = true`,
    and a `lot_size` that is a multiple of `source.samples`. Reasons: worse, no_score (the score is null or NaN).
    """

    kind: ClassVar[str] = "best_of"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = BestOfSpec
    reads_text: ClassVar[bool] = False
    compares_rows: ClassVar[bool] = True
    spec: BestOfSpec
    num_together: int | None = None  # samples of a source row; None outside a run, where `source_id` tells them

    def columns(self) -> list[pa.Field]:
        return [pa.field(f"{self.name}_{what}", pa.int32()) for what in ("rank", "size")]

    def reads(self) -> list[str]:
        return [self.spec.score]

    def refuses(self, field: pa.Field) -> str | None:
        is_number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        return None if is_number else "holds no number"

    def bind(self, run: RunContext) -> None:
        """Raises UserError where the samples of a source row may lie in several lots."""
        self.num_together = run.source.num_together
        if self.num_together < 2:
            raise UserError(
                f"stage '{self.name}' compares the samples of a source row: set source.samples, and "
                f"source.together = true"
            )
        if run.lot_size % self.num_together:
            raise UserError(
                f"stage '{self.name}' compares the samples of a source row within a lot: lot_size = {run.lot_size} "
                f"must be a multiple of source.samples = {self.num_together}"
            )

    def find(self, rows: pa.RecordBatch) -> Findings:
        score = rows.column(self.spec.score).cast(pa.float64()).to_numpy(zero_copy_only=False)
        groups, order = self._groups(rows), rows.column("row").to_numpy(zero_copy_only=False)
        is_scored = ~np.isnan(score)
        best_first = np.lexsort((order, score if self.spec.lowest else -score, groups))
        best_first = best_first[is_scored[best_first]]
        ordered = groups[best_first]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
        sizes = np.diff(np.r_[starts, len(ordered)])
        ranks, size_of = np.zeros(len(score), np.int32), np.zeros(len(score), np.int32)
        ranks[best_first] = np.arange(len(ordered)) - np.repeat(starts, sizes) + 1
        size_of[best_first] = np.repeat(sizes, sizes)
        columns = [pa.array(values, pa.int32(), mask=~is_scored) for values in (ranks, size_of)]
        reasons = np.where(is_scored, np.where(ranks > self.spec.keep, WORSE, None), NO_SCORE)  # type: ignore[call-overload]
        return Findings(dict(zip([f.name for f in self.columns()], columns)), pa.array(reasons, pa.string()))

    def _groups(self, rows: pa.RecordBatch) -> np.ndarray:
        """int64 (num_rows,): equal for the samples of a source row."""
        if self.num_together is not None:
            lot, row = (rows.column(name).to_numpy(zero_copy_only=False).astype(np.int64) for name in ("lot", "row"))
            groups: np.ndarray = (lot << 31) | (row // self.num_together)  # a preview has several lots in a batch
            return groups
        ids = pc.fill_null(rows.column("source_id").dictionary_encode().indices, -1)
        return ids.to_numpy(zero_copy_only=False).astype(np.int64)
