"""Linear regression by least squares; each fit labels the next generation (Gerstgrasser et al. 2024)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece
from gristmill.generators.chains.families import moments


@dataclass(frozen=True)
class RegressionSpec:
    """`[family]` of kind "linear_regression". y = x . w + noise with standard normal x, and w = 0 without loss of
    generality."""

    dims: int = 10  # Number of columns of x.
    noise: float = 1.0  # Standard deviation of the label noise in every generation.
    design: Literal["fresh", "same"] = "fresh"  # Draws new x in each generation ("fresh") or reuses the first ("same").

    def __post_init__(self) -> None:
        if self.dims < 1 or self.noise <= 0:
            raise ValueError("dims must be at least 1 and noise above 0")


class Model(NamedTuple):
    weights: np.ndarray  # (chains, dims)
    design: np.ndarray | None  # x of the first generation, (chains, rows, dims), when all generations share it


class LinearRegression(ChainFamily):
    """Rows are (x, y): float64 (chains, rows, dims + 1)."""

    kind: ClassVar[str] = "linear_regression"
    Spec: ClassVar[type] = RegressionSpec
    spec: RegressionSpec

    def least_rows(self) -> int:
        return self.spec.dims + 2  # the smallest number with a finite expected test error

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        rows = random.standard_normal((chains, num, self.spec.dims + 1))
        rows[:, :, -1] *= self.spec.noise
        return rows

    def hold(self, rows: np.ndarray) -> moments.RowMoments:
        return moments.hold(rows)

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Model:
        mean, outer, total, _ = moments.merge(pieces)
        second = outer + total * mean[:, :, None] * mean[:, None, :]  # about 0, because the model has no intercept
        dims = self.spec.dims
        weights = np.linalg.solve(second[:, :dims, :dims], second[:, :dims, dims:])[:, :, 0]
        is_same = self.spec.design == "same"
        return Model(weights, pieces[0].batches[0].rows[:, :, :dims] if is_same else None)

    def sample(self, model: Model, num: int, random: np.random.Generator) -> np.ndarray:
        chains, dims = model.weights.shape
        drawn = random.standard_normal((chains, num, dims + 1))
        x = drawn[:, :, :dims] if model.design is None else model.design[:, np.arange(num) % model.design.shape[1]]
        y = np.einsum("cnd,cd->cn", x, model.weights) + self.spec.noise * drawn[:, :, dims]
        return np.concatenate([x, y[:, :, None]], axis=2)

    def measure(self, model: Model, rows: np.ndarray, random: np.random.Generator) -> Measures:
        """test_error: E (x . (w_hat - w))^2 over new x, without the label noise."""
        return {"test_error": (model.weights**2).sum(axis=1)}

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """y x: its mean is the vector of weights."""
        return rows[0, :, :-1] * rows[0, :, -1:]

    def facts(self) -> Mapping[str, Any]:
        return {"dims": self.spec.dims, "noise": self.spec.noise, "design": self.spec.design}
