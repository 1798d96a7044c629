"""Measures of a generation of rows, against a fixed real holdout and at a fixed number of rows.

Arrays of many chains are float (chains, n, d); the result is one number per chain. Measures that need distances between
rows take one chain at a time. Recall, Vendi and Wasserstein depend on the number of rows: compare generations at equal
n.
"""

from dataclasses import dataclass

import numpy as np

from gristmill.evaluation.diversity import VENDI_ROWS, prdc, vendi
from gristmill.evaluation.draws import some, stream
from gristmill.evaluation.joint import frechet, median_distance, mmd

TAIL = 0.01  # share of the truth in each tail
SLICES = 32
SIZE = 2000  # rows of each side
MEDIAN_ROWS = 1000


@dataclass(frozen=True)
class Holdout:
    """Real rows that no model learns from, float64 (rows, d), with their reference values."""

    rows: np.ndarray
    low: np.ndarray  # (d,), quantile TAIL of each column
    high: np.ndarray  # (d,), quantile 1 - TAIL
    in_tails: float  # share of the holdout's own values beyond low and high
    trace: float
    bandwidth: float

    @classmethod
    def of(cls, rows: np.ndarray, tail: float = TAIL, seed: int = 0) -> "Holdout":
        """Raises ValueError for values that are not finite, fewer than two rows, or a tail outside (0, 0.5)."""
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
            raise ValueError("a holdout needs two or more rows of finite numbers")
        if not 0 < tail < 0.5:
            raise ValueError(f"the tail must be in (0, 0.5), not {tail}")
        low, high = np.quantile(rows, [tail, 1 - tail], axis=0)
        beyond = float(((rows < low) | (rows > high)).mean())
        bandwidth = median_distance(rows[some(len(rows), MEDIAN_ROWS, seed, "holdout bandwidth")])
        return cls(rows, low, high, beyond, float(rows.var(axis=0).sum()), bandwidth)


def covariances(rows: np.ndarray) -> np.ndarray:
    """The covariance matrix (divided by n) of each chain: (chains, n, d) to float64 (chains, d, d)."""
    apart = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    matrices: np.ndarray = np.einsum("cni,cnj->cij", apart, apart) / rows.shape[1]
    return matrices


def covariance_trace(rows: np.ndarray) -> np.ndarray:
    """The sum of the columns' variances (divided by n) of each chain, float64 (chains,)."""
    trace: np.ndarray = rows.var(axis=1, dtype=np.float64).sum(axis=1)
    return trace


def log_det(rows: np.ndarray) -> np.ndarray:
    """log det of each chain's covariance, float64 (chains,); -inf where it is singular: n <= d, or collapsed."""
    sign, logs = np.linalg.slogdet(covariances(rows))
    is_singular = (sign <= 0) | (rows.shape[1] <= rows.shape[2])
    return np.where(is_singular, -np.inf, logs)


def tail_mass(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The share of values below `low` or above `high` (d,), all columns together, float64 (chains,)."""
    share: np.ndarray = ((rows < low) | (rows > high)).mean(axis=(1, 2))
    return share


def wasserstein(rows: np.ndarray, real: np.ndarray, order: int = 1) -> np.ndarray:
    """Exact Wasserstein-1 or -2 distance of each column to real rows (m, d): float64 (chains, d), in column units.

    In one dimension the best transport pairs quantiles: the integral over u of |F^-1(u) - G^-1(u)|^order. The integrand
    changes only at multiples of 1/n and 1/m. Memory: chains * (n + m) * d numbers.
    """
    n, m = rows.shape[1], len(real)
    levels = np.unique(
        np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n])
    )  # whole numbers, in units of 1 / (n m)
    widths = np.diff(levels, prepend=0) / (n * m)
    left = np.sort(rows, axis=1)[:, (levels - 1) // m]
    right = np.sort(np.asarray(real, np.float64), axis=0)[(levels - 1) // n]
    moved = np.abs(left - right) ** order
    distances: np.ndarray = np.einsum("u,cud->cd", widths, moved) ** (1 / order)
    return distances


def sliced_wasserstein(rows: np.ndarray, real: np.ndarray, num_slices: int = SLICES, seed: int = 0) -> np.ndarray:
    """Sliced Wasserstein-2 distance (Rabin et al. 2011; Bonneel et al. 2015) to real rows (m, d), float64 (chains,).

    It is the root of the mean squared distance of projections on random directions, which the seed determines.
    """
    directions = stream(seed, "slices").standard_normal((num_slices, rows.shape[2]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    total = np.zeros(len(rows))
    for direction in directions:
        total += wasserstein((rows @ direction)[..., None], (real @ direction)[:, None], 2)[:, 0] ** 2
    distances: np.ndarray = np.sqrt(total / num_slices)
    return distances


def of_chains(rows: np.ndarray, holdout: Holdout) -> dict[str, np.ndarray]:
    """Cheap metrics of many chains (chains, n, d), each float64 (chains,).

    variance (covariance trace relative to the holdout), log_det, tail (mass in the tails relative to the holdout: 1 is
    right, 0 is lost), wasserstein (mean over the columns). Raises ValueError for values that are not finite.
    """
    if not np.isfinite(rows).all():
        raise ValueError("rows must be finite; record an overflowing chain as degenerate")
    trace = covariance_trace(rows)
    tail = tail_mass(rows, holdout.low, holdout.high)
    return {
        "variance": trace / holdout.trace if holdout.trace > 0 else trace,
        "log_det": log_det(rows),
        "tail": tail / holdout.in_tails if holdout.in_tails > 0 else tail,
        "wasserstein": wasserstein(rows, holdout.rows).mean(axis=1),
    }


def of_rows(rows: np.ndarray, holdout: Holdout, seed: int = 0, size: int = SIZE) -> dict[str, float | None]:
    """All metrics of one chain's rows (n, d): those of `of_chains`, sliced Wasserstein-2, MMD, Frechet distance,
    precision, recall, density, coverage, Vendi.

    It uses at most `size` random rows of each side. A metric is None with too few rows; log_det is None for a singular
    covariance.
    """
    rows = np.asarray(rows, np.float64)[some(len(rows), size, seed, "collapse rows")]
    real = holdout.rows[some(len(holdout.rows), size, seed, "collapse holdout")]
    metrics: dict[str, float | None] = {k: float(v[0]) for k, v in of_chains(rows[None], holdout).items()}
    if metrics["log_det"] == -np.inf:
        metrics["log_det"] = None
    metrics["sliced_wasserstein"] = float(sliced_wasserstein(rows[None], real, seed=seed)[0])
    enough = min(len(rows), len(real)) > 1
    metrics["mmd"] = mmd(real, rows, seed) if enough else None
    metrics["frechet"] = frechet(real, rows) if enough else None
    names = ("precision", "recall", "density", "coverage")
    metrics |= prdc(real.astype(np.float32), rows.astype(np.float32)) or dict.fromkeys(names)
    metrics["vendi"] = vendi(rows, holdout.bandwidth, seed, min(size, VENDI_ROWS))
    return metrics
