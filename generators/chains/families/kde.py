"""Kernel density estimates: rows are drawn again with noise, so the variance grows (Kazdan et al. 2025)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece, rows_of, shrink, weights_of
from gristmill.generators.families.contract import check_bias


@dataclass(frozen=True)
class KdeSpec:
    """`[family]` of kind "kde". The truth is a standard normal distribution."""

    dims: int = 1  # Number of columns.
    bandwidth: float = 0.2  # Standard deviation of the kernel, relative to that of each column.
    bias: float = 1.0  # Sampling bias, in [0, 1]: rows are drawn towards their mean, to this share of their variance.

    def __post_init__(self) -> None:
        if self.dims < 1 or self.bandwidth < 0:
            raise ValueError("dims must be at least 1 and bandwidth at least 0")
        check_bias(self.bias)


class Model(NamedTuple):
    rows: np.ndarray  # (chains, rows, dims)
    shares: np.ndarray  # (rows,), probability of each row, sums to 1
    mean: np.ndarray  # (chains, dims)
    variance: np.ndarray  # (chains, dims), of the rows


class Kde(ChainFamily):
    """A Gaussian kernel on every training row. A bandwidth of 0 is the bootstrap."""

    kind: ClassVar[str] = "kde"
    Spec: ClassVar[type] = KdeSpec
    spec: KdeSpec

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((chains, num, self.spec.dims))

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Model:
        rows = np.concatenate([rows_of(piece) for piece in pieces], axis=1)
        weights = weights_of(pieces)
        shares = weights / weights.sum()
        mean = np.einsum("n,cnd->cd", shares, rows)
        return Model(rows, shares, mean, np.einsum("n,cnd->cd", shares, (rows - mean[:, None]) ** 2))

    def sample(self, model: Model, num: int, random: np.random.Generator) -> np.ndarray:
        chains = len(model.rows)
        ends = np.cumsum(model.shares)
        at = np.searchsorted(ends / ends[-1], random.random((chains, num)), side="right")
        drawn = np.take_along_axis(model.rows, np.minimum(at, len(ends) - 1)[:, :, None], axis=1)
        noise = random.standard_normal(drawn.shape) * np.sqrt(model.variance)[:, None]
        rows: np.ndarray = shrink(model.mean, drawn + self.spec.bandwidth * noise, self.spec.bias)
        return rows

    def measure(self, model: Model, rows: np.ndarray, random: np.random.Generator) -> Measures:
        """variance of the training rows (the trace), mean_error |mu|^2, total_variance, distinct (share of different
        rows among those made, below 1 only without a bandwidth)."""
        error, variance = (model.mean**2).sum(axis=1), model.variance.sum(axis=1)
        first = np.sort(rows[:, :, 0], axis=1)
        distinct = 1 - (first[:, 1:] == first[:, :-1]).mean(axis=1)
        return {"variance": variance, "mean_error": error, "total_variance": variance + error, "distinct": distinct}

    def facts(self) -> Mapping[str, Any]:
        return {"dims": self.spec.dims, "bias": self.spec.bias * (1 + self.spec.bandwidth**2)}
