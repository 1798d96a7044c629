"""Normal distributions fitted by moments. Every regime has an exact law."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece
from gristmill.generators.chains.families import moments
from gristmill.generators.families.contract import check_bias

TAILS = (2.0, 3.0)  # in standard deviations of the truth


@dataclass(frozen=True)
class GaussianSpec:
    """`[family]` of kind "gaussian". The truth is a standard normal distribution."""

    dims: int = 1  # Number of columns.
    estimator: Literal["mle", "unbiased"] = "mle"  # Divisor of the covariance: n ("mle") or n - 1 ("unbiased").
    bias: float = 1.0  # Sampling bias, in [0, 1]: rows are drawn with this share of the fitted covariance.

    def __post_init__(self) -> None:
        if self.dims < 1:
            raise ValueError("dims must be at least 1")
        check_bias(self.bias)


class Model(NamedTuple):
    mean: np.ndarray  # (chains, dims)
    covariance: np.ndarray  # (chains, dims, dims)


class Gaussian(ChainFamily):
    """Mean and covariance by maximum likelihood, or with the unbiased covariance."""

    kind: ClassVar[str] = "gaussian"
    Spec: ClassVar[type] = GaussianSpec
    spec: GaussianSpec

    def least_rows(self) -> int:
        return self.spec.dims + 1

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((chains, num, self.spec.dims))

    def hold(self, rows: np.ndarray) -> moments.RowMoments:
        return moments.hold(rows)

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Model:
        mean, outer, total, squares = moments.merge(pieces)
        # The unbiased divisor is the total weight less sum w^2 / sum w: n - 1 for equal weights.
        return Model(mean, outer / (total - squares / total if self.spec.estimator == "unbiased" else total))

    def sample(self, model: Model, num: int, random: np.random.Generator) -> np.ndarray:
        noise = random.standard_normal((len(model.mean), num, self.spec.dims))
        if self.spec.dims == 1:
            return model.mean[:, None] + noise * np.sqrt(self.spec.bias * model.covariance)
        values, vectors = np.linalg.eigh(model.covariance)
        root = vectors * np.sqrt(self.spec.bias * np.maximum(values, 0))[:, None, :]
        return model.mean[:, None] + noise @ root.transpose(0, 2, 1)

    def measure(self, model: Model, rows: np.ndarray, random: np.random.Generator) -> Measures:
        """variance (the trace), log_variance (log of the determinant), mean_error |mu|^2, total_variance, w2_squared
        to the truth, and the mass beyond some standard deviations of the truth (tail_2_sd, tail_3_sd)."""
        values = (
            model.covariance[:, :, 0] if self.spec.dims == 1 else np.maximum(np.linalg.eigvalsh(model.covariance), 0)
        )
        error = (model.mean**2).sum(axis=1)
        with np.errstate(divide="ignore"):
            logs = np.log(values).sum(axis=1)
        measures = {
            "variance": values.sum(axis=1),
            "log_variance": logs,
            "mean_error": error,
            # Without bias its mean over chains is the variance of the truth (law of total variance).
            "total_variance": values.sum(axis=1) + error,
            # Two normal distributions, one of them with the identity as covariance (Dowson and Landau 1982).
            "w2_squared": error + ((np.sqrt(values) - 1) ** 2).sum(axis=1),
        }
        first, deviation = model.mean[:, 0], np.sqrt(model.covariance[:, 0, 0])
        for tail in TAILS:
            measures[f"tail_{tail:g}_sd"] = upper(tail - first, deviation) + upper(tail + first, deviation)
        return measures

    def facts(self) -> Mapping[str, Any]:
        return {"dims": self.spec.dims, "estimator": self.spec.estimator, "bias": self.spec.bias}


def upper(distance: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """P(N(0, deviation^2) > distance)."""
    from scipy.special import ndtr

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(deviation > 0, ndtr(-distance / deviation), (distance < 0).astype(float))
