"""Rejects answers that the model itself found improbable, by the logprobs that `logprobs = true` keeps.

The mean logprob is the negative logarithm of the answer's perplexity (in nats a token) under its own model; the least
one marks the token that the model found least probable. Low values go with hallucinated facts (Manakul et al. 2023,
SelfCheckGPT, arXiv 2303.08896, section 4, which compares mean and worst token, by probability and by entropy).
"""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.stages.contract import Findings, Stage


@dataclass(frozen=True)
class ConfidenceSpec:
    """Keys of the stage `confidence`, which needs `logprobs = true` in the generator. Thresholds are in nats."""

    min_mean: float | None = None  # Least mean logprob of the answer's tokens, e.g. -1.0: a perplexity of 2.7.
    min_min: float | None = None  # Least logprob of any token of the answer, e.g. -8.0: a probability of 0.03 %.
    max_entropy: float | None = None  # Largest mean entropy of the answer's tokens, e.g. 1.5.

    def __post_init__(self) -> None:
        if self.min_mean is None and self.min_min is None and self.max_entropy is None:
            raise ValueError("set at least one of min_mean, min_min and max_entropy")
        for name, value in (("min_mean", self.min_mean), ("min_min", self.min_min)):
            if value is not None and value > 0:
                raise ValueError(f"{name} is a logprob, which is at most 0, not {value}")
        if self.max_entropy is not None and self.max_entropy < 0:
            raise ValueError(f"max_entropy is at least 0, not {self.max_entropy}")


class Confidence(Stage):
    """Reasons, the first that applies: no_logprobs (the answer is of several calls), mean, min, entropy."""

    kind: ClassVar[str] = "confidence"
    Spec: ClassVar[type] = ConfidenceSpec
    reads_text: ClassVar[bool] = False
    spec: ConfidenceSpec

    def reads(self) -> list[str]:
        spec = self.spec
        bounds = {"logprob_mean": spec.min_mean, "logprob_min": spec.min_min, "entropy": spec.max_entropy}
        return [name for name, bound in bounds.items() if bound is not None]

    def refuses(self, field: pa.Field) -> str | None:
        return None if pa.types.is_floating(field.type) else "holds no numbers"

    def find(self, rows: pa.RecordBatch) -> Findings:
        spec, reasons = self.spec, pa.nulls(rows.num_rows, pa.string())
        tests = (
            ("logprob_mean", "mean", lambda column: pc.less(column, spec.min_mean)),
            ("logprob_min", "min", lambda column: pc.less(column, spec.min_min)),
            ("entropy", "entropy", lambda column: pc.greater(column, spec.max_entropy)),
        )
        columns = self.reads()
        for name in columns:
            reasons = pc.if_else(pc.is_null(rows.column(name), nan_is_null=True), "no_logprobs", reasons)
        for name, reason, is_rejected in tests:
            if name in columns:
                rejected = pc.fill_null(is_rejected(rows.column(name)), False)
                reasons = pc.if_else(pc.and_(rejected, pc.is_null(reasons)), reason, reasons)
        return Findings(reasons=reasons)
