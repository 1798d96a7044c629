"""Mixtures of normal distributions, fitted by expectation maximisation (EM).

Modes merge and vanish. Over chains, the mean of a mixture gains the variance that the mixture loses (Shumailov et al.
2024).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece, rows_of, shrink, weights_of
from gristmill.generators.families.contract import check_bias

RIDGE = 1e-9  # added to the diagonal of covariances, so that a component on a single row has a density
WITHIN, LEAST = 3.0, 0.1  # a mode is present when a tenth of its share is within 3 standard deviations of it


@dataclass(frozen=True)
class GmmSpec:
    """`[family]` of kind "gmm". The truth is a mixture of unit normal distributions of equal share in two dimensions,
    with their centres on a circle."""

    components: int = 4  # Number of components of the truth and of each model.
    radius: float = 5.0  # Radius of the circle of centres.
    steps: int = 40  # Number of EM steps of a fit.
    bias: float = 1.0  # Sampling bias, in [0, 1]: rows are drawn towards their mean, to this share of their variance.

    def __post_init__(self) -> None:
        if self.components < 1 or self.radius < 0 or self.steps < 1:
            raise ValueError("components and steps must be at least 1 and radius at least 0")
        check_bias(self.bias)

    @property
    def centres(self) -> np.ndarray:
        """float64 (components, 2)."""
        angles = 2 * np.pi * np.arange(self.components) / self.components
        return self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


class Model(NamedTuple):
    shares: np.ndarray  # (chains, components)
    means: np.ndarray  # (chains, components, 2)
    covariances: np.ndarray  # (chains, components, 2, 2)


class Gmm(ChainFamily):
    """Mixtures with full covariances. EM starts from rows that are far from each other (k-means++)."""

    kind: ClassVar[str] = "gmm"
    Spec: ClassVar[type] = GmmSpec
    block: ClassVar[int] = 64
    spec: GmmSpec

    def least_rows(self) -> int:
        return 3 * self.spec.components

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        at = random.integers(0, self.spec.components, (chains, num))
        return self.spec.centres[at] + random.standard_normal((chains, num, 2))

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Model:
        rows = np.concatenate([rows_of(piece) for piece in pieces], axis=1)
        weights = weights_of(pieces)
        centres = _far_apart(rows, self.spec.components, random)
        nearest = ((rows[:, :, None] - centres[:, None]) ** 2).sum(axis=3).argmin(axis=2)
        belongs = np.eye(self.spec.components)[nearest]
        model = _maximise(rows, belongs, weights)
        for _ in range(self.spec.steps):
            model = _maximise(rows, _memberships(rows, model), weights)
        return model

    def sample(self, model: Model, num: int, random: np.random.Generator) -> np.ndarray:
        ends = np.cumsum(model.shares, axis=1)
        at = (ends[:, None] <= random.random((len(ends), num, 1)) * ends[:, None, -1:]).sum(axis=2)
        at = np.minimum(at, self.spec.components - 1)
        values, vectors = np.linalg.eigh(model.covariances)
        roots = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
        chain = np.arange(len(at))[:, None]
        noise = random.standard_normal((*at.shape, 2))
        drawn = model.means[chain, at] + np.einsum("cnij,cnj->cni", roots[chain, at], noise)
        return shrink(np.einsum("ck,ckd->cd", model.shares, model.means), drawn, self.spec.bias)

    def measure(self, model: Model, rows: np.ndarray, random: np.random.Generator) -> Measures:
        """variance (trace of the mixture's covariance), mean_error |mu|^2, total_variance, modes (share of the true
        modes that the rows have), outside (share of rows in no mode)."""
        mean = np.einsum("ck,ckd->cd", model.shares, model.means)
        within = np.einsum("ck,ckii->c", model.shares, model.covariances)
        between = (model.shares * ((model.means - mean[:, None]) ** 2).sum(axis=2)).sum(axis=1)
        error = (mean**2).sum(axis=1)
        apart = ((rows[:, :, None] - self.spec.centres) ** 2).sum(axis=3)
        is_near = (apart <= WITHIN**2) & (apart == apart.min(axis=2, keepdims=True))
        share = is_near.mean(axis=1)
        return {
            "variance": within + between,
            "mean_error": error,
            "total_variance": within + between + error,
            "modes": (share >= LEAST / self.spec.components).mean(axis=1),
            "outside": 1 - is_near.any(axis=2).mean(axis=1),
        }

    def facts(self) -> Mapping[str, Any]:
        truth = 2 + self.spec.radius**2 if self.spec.components > 1 else 2.0
        return {"dims": 2, "truth": truth, "bias": self.spec.bias}


def _far_apart(rows: np.ndarray, num: int, random: np.random.Generator) -> np.ndarray:
    """Rows to start from, (chains, num, 2), each drawn by its squared distance from those before (k-means++)."""
    chains = len(rows)
    centres = [rows[np.arange(chains), random.integers(0, rows.shape[1], chains)]]
    for _ in range(num - 1):
        apart = np.min([((rows - centre[:, None]) ** 2).sum(axis=2) for centre in centres], axis=0)
        ends = np.cumsum(apart, axis=1)
        at = (ends <= random.random((chains, 1)) * ends[:, -1:]).sum(axis=1)
        centres.append(rows[np.arange(chains), np.minimum(at, rows.shape[1] - 1)])
    return np.stack(centres, axis=1)


def _maximise(rows: np.ndarray, belongs: np.ndarray, weights: np.ndarray) -> Model:
    """The M step: shares, means and covariances from memberships `belongs` (chains, rows, components)."""
    heavy = belongs * weights[:, None]
    counts = heavy.sum(axis=1)
    safe = np.maximum(counts, 1e-300)
    means = np.einsum("cnk,cnd->ckd", heavy, rows) / safe[..., None]
    second = np.einsum("cnk,cni,cnj->ckij", heavy, rows, rows, optimize=True) / safe[..., None, None]
    covariances = second - means[..., :, None] * means[..., None, :]
    covariances = (covariances + covariances.swapaxes(2, 3)) / 2
    return Model(counts / counts.sum(axis=1, keepdims=True), means, covariances)


def _memberships(rows: np.ndarray, model: Model) -> np.ndarray:
    """The E step: probability of each component for each row, (chains, rows, components)."""
    covariances = model.covariances + RIDGE * np.eye(2)
    determinant = np.linalg.det(covariances)
    inverse = np.linalg.inv(covariances)
    apart = rows[:, :, None] - model.means[:, None]
    with np.errstate(divide="ignore"):
        logs = np.log(model.shares) - np.log(np.maximum(determinant, 1e-300)) / 2
    logs = logs[:, None] - np.einsum("cnki,ckij,cnkj->cnk", apart, inverse, apart, optimize=True) / 2
    logs -= logs.max(axis=2, keepdims=True)
    chances = np.exp(logs)
    return chances / chances.sum(axis=2, keepdims=True)
