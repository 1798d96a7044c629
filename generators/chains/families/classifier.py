"""Linear classifiers that label the rows of the next generation (Feng et al. 2025, section 4)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece, rows_of


@dataclass(frozen=True)
class ClassifierSpec:
    """`[family]` of kind "linear_classifier". x is standard normal. The true label is the sign of its first column,
    without loss of generality."""

    dims: int = 50  # Number of columns of x.
    noise: float = 0.0  # Share of the real labels that are flipped at random.
    made_noise: float = 0.0  # Share of each model's labels that are flipped at random.

    def __post_init__(self) -> None:
        if self.dims < 2:
            raise ValueError("dims must be at least 2")
        if not 0 <= self.noise <= 1 or not 0 <= self.made_noise <= 1:
            raise ValueError("noise and made_noise must be in [0, 1]")


class LinearClassifier(ChainFamily):
    """Rows are (x, y) with y = -1 or 1: float64 (chains, rows, dims + 1).

    A model is the mean of y x: float64 (chains, dims), of which only the direction counts. It is the direction of
    linear discriminant analysis with a known covariance.
    """

    kind: ClassVar[str] = "linear_classifier"
    Spec: ClassVar[type] = ClassifierSpec
    block: ClassVar[int] = 16
    spec: ClassifierSpec

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        truth = np.zeros((chains, self.spec.dims))
        truth[:, 0] = 1.0
        return self._sample_labels(truth, num, self.spec.noise, random)

    def sample(self, model: np.ndarray, num: int, random: np.random.Generator) -> np.ndarray:
        return self._sample_labels(model, num, self.spec.made_noise, random)

    def _sample_labels(self, weights: np.ndarray, num: int, noise: float, random: np.random.Generator) -> np.ndarray:
        chains, dims = weights.shape
        rows = np.empty((chains, num, dims + 1))
        rows[:, :, :dims] = random.standard_normal((chains, num, dims))
        labels = np.where(np.einsum("cnd,cd->cn", rows[:, :, :dims], weights) >= 0, 1.0, -1.0)
        rows[:, :, dims] = np.where(random.random((chains, num)) < noise, -labels, labels)
        return rows

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> np.ndarray:
        weighted_sum, total = 0.0, 0.0
        for piece in pieces:
            rows = rows_of(piece)
            weighted_sum = weighted_sum + piece.weight * np.einsum("cnd,cn->cd", rows[:, :, :-1], rows[:, :, -1])
            total += piece.weight * piece.num
        return np.asarray(weighted_sum) / total

    def measure(self, model: np.ndarray, rows: np.ndarray, random: np.random.Generator) -> Measures:
        """accuracy: share of new x that get the true label, exactly 1 - angle / pi (1/2 for a model without a
        direction); error: 1 - accuracy."""
        length = np.sqrt((model**2).sum(axis=1))
        cosine = np.divide(model[:, 0], length, out=np.zeros_like(length), where=length > 0)
        error = np.arccos(np.clip(cosine, -1, 1)) / math.pi
        return {"accuracy": 1 - error, "error": error}

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """y x: a model is its mean."""
        return rows[0, :, :-1] * rows[0, :, -1:]

    def is_right(self, rows: np.ndarray) -> np.ndarray:
        is_right: np.ndarray = rows[0, :, 0] * rows[0, :, -1] > 0
        return is_right

    def facts(self) -> Mapping[str, Any]:
        return {"dims": self.spec.dims, "noise": self.spec.noise, "made_noise": self.spec.made_noise}
