"""What a study measures of every generation, against a fixed real holdout and at a fixed number of rows.

Arrays of many chains are (chains, n, d), float; one number a chain comes back. What needs distances between rows is
for one chain at a time. Recall, Vendi, types and Wasserstein depend on the number of rows: compare generations at
equal n.
"""

from dataclasses import dataclass

import numpy as np

from gristmill.evaluation.diversity import VENDI_ROWS, prdc, vendi
from gristmill.evaluation.draws import some, stream
from gristmill.evaluation.joint import frechet, median_distance, mmd

TAIL = 0.01  # of the truth, on either side
SLICES = 32
WITHIN = 3.0  # standard deviations of a mode
LEAST = 0.1  # of the rows that a mode should have
SIZE = 2000
MEDIAN_ROWS = 1000


@dataclass(frozen=True)
class Holdout:
    """Real rows that no model has seen, and what is taken from them once: float64 (rows, d)."""

    rows: np.ndarray
    low: np.ndarray  # (d,), the quantile TAIL of each column
    high: np.ndarray
    in_tails: float  # the share of its own values that lies beyond them
    trace: float
    bandwidth: float

    @classmethod
    def of(cls, rows: np.ndarray, tail: float = TAIL, seed: int = 0) -> "Holdout":
        """Raises ValueError for values that are not finite, fewer than two rows, or a tail outside (0, 0.5)."""
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
            raise ValueError("a holdout is two or more rows of finite numbers")
        if not 0 < tail < 0.5:
            raise ValueError(f"the tail must lie in (0, 0.5), not {tail}")
        low, high = np.quantile(rows, [tail, 1 - tail], axis=0)
        beyond = float(((rows < low) | (rows > high)).mean())
        bandwidth = median_distance(rows[some(len(rows), MEDIAN_ROWS, seed, "holdout bandwidth")])
        return cls(rows, low, high, beyond, float(rows.var(axis=0).sum()), bandwidth)


def covariances(rows: np.ndarray) -> np.ndarray:
    """The covariance matrix (divided by n) of each chain: (chains, n, d) to float64 (chains, d, d)."""
    apart = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    made: np.ndarray = np.einsum("cni,cnj->cij", apart, apart) / rows.shape[1]
    return made


def covariance_trace(rows: np.ndarray) -> np.ndarray:
    """The sum of the columns' variances (divided by n) of each chain, float64 (chains,)."""
    found: np.ndarray = rows.var(axis=1, dtype=np.float64).sum(axis=1)
    return found


def log_det(rows: np.ndarray) -> np.ndarray:
    """log det of each chain's covariance, float64 (chains,); -inf where it is singular: n <= d, or collapsed."""
    sign, logs = np.linalg.slogdet(covariances(rows))
    is_singular = (sign <= 0) | (rows.shape[1] <= rows.shape[2])
    return np.where(is_singular, -np.inf, logs)


def tail_mass(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The share of values below `low` or above `high` (d,), all columns together, float64 (chains,)."""
    found: np.ndarray = ((rows < low) | (rows > high)).mean(axis=(1, 2))
    return found


def wasserstein(rows: np.ndarray, real: np.ndarray, order: int = 1) -> np.ndarray:
    """Wasserstein-1 or -2 of each column to real rows (m, d): float64 (chains, d), in the column's units; exact.

    In one dimension the best plan joins quantiles: the integral over u of |F^-1(u) - G^-1(u)|^order, whose integrand
    changes at multiples of 1/n and 1/m only. Memory: chains * (n + m) * d numbers.
    """
    n, m = rows.shape[1], len(real)
    levels = np.unique(np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n]))  # of n m: whole numbers
    widths = np.diff(levels, prepend=0) / (n * m)
    left = np.sort(rows, axis=1)[:, (levels - 1) // m]
    right = np.sort(np.asarray(real, np.float64), axis=0)[(levels - 1) // n]
    moved = np.abs(left - right) ** order
    found: np.ndarray = np.einsum("u,cud->cd", widths, moved) ** (1 / order)
    return found


def sliced_wasserstein(rows: np.ndarray, real: np.ndarray, num_slices: int = SLICES, seed: int = 0) -> np.ndarray:
    """Sliced Wasserstein-2 (Rabin et al. 2011; Bonneel et al. 2015) to real rows (m, d), float64 (chains,).

    The root of the mean, over random directions drawn by the seed, of the squared distance of the projections.
    """
    directions = stream(seed, "slices").standard_normal((num_slices, rows.shape[2]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    total = np.zeros(len(rows))
    for way in directions:
        total += wasserstein((rows @ way)[..., None], (real @ way)[:, None], 2)[:, 0] ** 2
    found: np.ndarray = np.sqrt(total / num_slices)
    return found


def of_chains(rows: np.ndarray, holdout: Holdout) -> dict[str, np.ndarray]:
    """The cheap metrics of many chains (chains, n, d) at once, each float64 (chains,).

    variance (covariance trace over the holdout's), log_det, tail (mass beyond the truth's quantiles over the holdout's:
    1 is right, 0 is lost), wasserstein (mean of the columns). Raises ValueError for values that are not finite.
    """
    if not np.isfinite(rows).all():
        raise ValueError("rows must be finite; record a chain that left the numbers as degenerate")
    trace = covariance_trace(rows)
    tail = tail_mass(rows, holdout.low, holdout.high)
    return {
        "variance": trace / holdout.trace if holdout.trace > 0 else trace,
        "log_det": log_det(rows),
        "tail": tail / holdout.in_tails if holdout.in_tails > 0 else tail,
        "wasserstein": wasserstein(rows, holdout.rows).mean(axis=1),
    }


def of_rows(rows: np.ndarray, holdout: Holdout, seed: int = 0, size: int = SIZE) -> dict[str, float | None]:
    """Everything of one chain's rows (n, d): the metrics of `of_chains`, sliced Wasserstein-2, MMD, Frechet distance,
    precision, recall, density, coverage, Vendi.

    At most `size` rows of both sides, drawn by the seed. None where there are too few rows, or log_det of a singular
    covariance.
    """
    rows = np.asarray(rows, np.float64)[some(len(rows), size, seed, "collapse rows")]
    real = holdout.rows[some(len(holdout.rows), size, seed, "collapse holdout")]
    found: dict[str, float | None] = {k: float(v[0]) for k, v in of_chains(rows[None], holdout).items()}
    if found["log_det"] == -np.inf:
        found["log_det"] = None
    found["sliced_wasserstein"] = float(sliced_wasserstein(rows[None], real, seed=seed)[0])
    enough = min(len(rows), len(real)) > 1
    found["mmd"] = mmd(real, rows, seed) if enough else None
    found["frechet"] = frechet(real, rows) if enough else None
    names = ("precision", "recall", "density", "coverage")
    found |= prdc(real.astype(np.float32), rows.astype(np.float32)) or dict.fromkeys(names)
    found["vendi"] = vendi(rows, holdout.bandwidth, seed, min(size, VENDI_ROWS))
    return found
