"""Keeps texts that a light classifier scores well. `gristmill fit` trains the model, of kind "quality".

The pattern is that of Gunasekar et al. 2023 (Textbooks Are All You Need, section 2.1): a large model annotates some
thousand rows, a small classifier learns from them and scores all other rows on the CPU.
"""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.ids import fingerprint
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.model_files import read_card, read_weights
from gristmill.stages.ngrams import Linear, Ngrams

MODEL_REVISION = 2  # of the model family, since which it reads the words of every script
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QualitySpec:
    """Keys of the stage `quality`."""

    path: str  # Output of `gristmill fit` with the model.
    column: str = "text"  # Column with the text.
    # Least score, 0 to 1, of a row that is kept; by default the operating threshold of the model.
    min_score: float | None = None

    def __post_init__(self) -> None:
        if not self.path or not self.column:
            raise ValueError("path and column must not be empty")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError("min_score must lie in 0 to 1")


class Quality(Stage):
    """Adds `NAME_score`, the model's probability that a row is good, to 4 decimals. A null text counts as empty."""

    kind: ClassVar[str] = "quality"
    revision: ClassVar[int] = 2  # 2: words and normal form of every script
    Spec: ClassVar[type] = QualitySpec
    spec: QualitySpec

    def __init__(self, spec: QualitySpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._ngrams: Ngrams | None = None
        self._model: Linear | None = None
        self._least = 0.0

    def columns(self) -> list[pa.Field]:
        return [pa.field(f"{self.name}_score", pa.float32())]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        card = self._card()
        model = fingerprint([card["fingerprint"], card["weights_sha256"], card["facts"]])
        return {**super().identity(), "model": model}

    def check(self) -> None:
        if self._card()["identity"].get("revision", 1) < MODEL_REVISION:
            logger.warning(
                f"{self.name}: {self.spec.path} was fitted with the words of an earlier version, which differ beyond "
                "ASCII; fit it again for texts in other scripts"
            )

    def _card(self) -> dict[str, Any]:
        return read_card(self.spec.path, self.kind, self.name)

    def open(self) -> None:
        card = self._card()
        arrays = read_weights(self.spec.path, card, self.name)
        spec, least = card["identity"]["spec"], self.spec.min_score
        self._ngrams = Ngrams(spec["bits"], spec["words"], spec["num_bytes"])
        self._model = Linear(arrays["weights"], float(arrays["unit"][0]), arrays["slopes"], float(arrays["bias"][0]))
        self._least = card["facts"]["threshold"] if least is None else least

    def find(self, rows: pa.RecordBatch) -> Findings:
        assert self._ngrams is not None and self._model is not None, "open() first"
        scores = self._ngrams.scores(rows.column(self.spec.column), self._model)
        reasons = pc.if_else(pa.array(scores < self._least), "score", pa.scalar(None, pa.string()))
        return Findings({self.columns()[0].name: pa.array(scores.astype(np.float32))}, reasons)
