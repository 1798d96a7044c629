"""Normal distributions fitted by moments: the family whose every regime has an exact law."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece
from gristmill.generators.chains.families import moments
from gristmill.generators.families.contract import check_bias

TAILS = (2.0, 3.0)  # standard deviations of the truth


@dataclass(frozen=True)
class GaussianSpec:
    """The truth is a standard normal distribution of `dims` columns."""

    dims: int = 1
    estimator: Literal["mle", "unbiased"] = "mle"  # of the covariance: over n, or over n - 1
    bias: float = 1.0  # MAD's lambda: rows are drawn with so much of the fitted covariance

    def __post_init__(self) -> None:
        if self.dims < 1:
            raise ValueError("dims must be at least 1")
        check_bias(self.bias)


class Model(NamedTuple):
    mean: np.ndarray  # (chains, dims)
    covariance: np.ndarray  # (chains, dims, dims)


class Gaussian(ChainFamily):
    """mu and Sigma by maximum likelihood or without bias."""

    kind: ClassVar[str] = "gaussian"
    Spec: ClassVar[type] = GaussianSpec
    spec: GaussianSpec

    def least_rows(self) -> int:
        return self.spec.dims + 1

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((chains, num, self.spec.dims))

    def hold(self, rows: np.ndarray) -> moments.Held:
        return moments.hold(rows)

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Model:
        mean, outer, total, squares = moments.merged(pieces)
        # Without bias: over the total weight less sum w^2 / sum w, which is n - 1 for equal weights.
        return Model(mean, outer / (total - squares / total if self.spec.estimator == "unbiased" else total))

    def sample(self, model: Model, num: int, random: np.random.Generator) -> np.ndarray:
        drawn = random.standard_normal((len(model.mean), num, self.spec.dims))
        if self.spec.dims == 1:
            return model.mean[:, None] + drawn * np.sqrt(self.spec.bias * model.covariance)
        values, vectors = np.linalg.eigh(model.covariance)
        root = vectors * np.sqrt(self.spec.bias * np.maximum(values, 0))[:, None, :]
        return model.mean[:, None] + drawn @ root.transpose(0, 2, 1)

    def measure(self, model: Model, made: np.ndarray, random: np.random.Generator) -> Measures:
        """variance (the trace), log_variance (of the determinant), mean_error |mu|^2, their sum, W2^2 to the truth, and
        how much lies beyond some standard deviations of the truth."""
        values = (
            model.covariance[:, :, 0] if self.spec.dims == 1 else np.maximum(np.linalg.eigvalsh(model.covariance), 0)
        )
        error = (model.mean**2).sum(axis=1)
        with np.errstate(divide="ignore"):
            logs = np.log(values).sum(axis=1)
        found = {
            "variance": values.sum(axis=1),
            "log_variance": logs,
            "mean_error": error,
            "total_variance": values.sum(axis=1) + error,  # its mean over chains is the truth's: what one loses, the
            # other gains (law of total variance), as long as fits and draws have no bias
            # Of two normal distributions, one with the identity (Dowson and Landau 1982).
            "w2_squared": error + ((np.sqrt(values) - 1) ** 2).sum(axis=1),
        }
        first, deviation = model.mean[:, 0], np.sqrt(model.covariance[:, 0, 0])
        for tail in TAILS:
            found[f"tail_{tail:g}_sd"] = upper(tail - first, deviation) + upper(tail + first, deviation)
        return found

    def facts(self) -> Mapping[str, Any]:
        return {"dims": self.spec.dims, "estimator": self.spec.estimator, "bias": self.spec.bias}


def upper(distance: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """P(N(0, deviation^2) > distance)."""
    from scipy.special import ndtr

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(deviation > 0, ndtr(-distance / deviation), (distance < 0).astype(float))
