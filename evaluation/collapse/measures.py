"""What a study measures of every generation, against a fixed real holdout and at a fixed number of rows.

Arrays of many chains are (chains, n, d), float; one number a chain comes back. What needs distances between rows is
for one chain at a time. Recall, Vendi, types and Wasserstein depend on the number of rows: compare generations at
equal n.
"""

from dataclasses import dataclass
from typing import Any

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


def gaussian_w2(
    mean: np.ndarray, variance: np.ndarray, true_mean: float = 0.0, true_variance: float = 1.0
) -> np.ndarray:
    """Wasserstein-2 of one-dimensional Gaussians, from the models' own numbers: no rows are needed."""
    found: np.ndarray = np.sqrt((mean - true_mean) ** 2 + (np.sqrt(variance) - np.sqrt(true_variance)) ** 2)
    return found


def modes(
    rows: np.ndarray, centres: np.ndarray, scale: float, shares: np.ndarray | None = None, within: float = WITHIN
) -> tuple[np.ndarray, np.ndarray]:
    """(share of the truth's modes that are found, share of rows that lie in none) of each chain, float64 (chains,).

    A row belongs to the nearest centre (modes, d), if it is within `within` times `scale`; a mode is found when it
    has a tenth of the rows that its share (default: alike) promises, and at least one. "High-quality samples" and
    "modes" of Srivastava et al. 2017 (VEEGAN), with the tenth in place of a single row.
    """
    promised = np.full(len(centres), 1 / len(centres)) if shares is None else np.asarray(shares, np.float64)
    best, owner = np.full(rows.shape[:2], np.inf), np.zeros(rows.shape[:2], np.int64)
    for place, centre in enumerate(centres):  # one centre at a time bounds the memory
        squares = ((rows - centre) ** 2).sum(axis=2)
        owner[squares < best] = place
        np.minimum(best, squares, out=best)
    owner[best > (within * scale) ** 2] = len(centres)
    n = rows.shape[1]
    counts = np.stack([(owner == place).sum(axis=1) for place in range(len(centres))], axis=1)
    is_found = counts >= np.maximum(1.0, LEAST * promised * n)
    return is_found.mean(axis=1), 1 - counts.sum(axis=1) / n


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


def of_counts(counts: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of categories: counts or shares (chains, types) beside the truth's shares (types,), each float64
    (chains,).

    gini_simpson, entropy (nats), types_kept (share of the truth's types that occur), unseen (share of the truth that
    does not), total_variation, tail (mass on the truth's rarest types, that hold TAIL of it or the rarest one, over
    their own). Raises ValueError for a chain without rows.
    """
    counts = np.asarray(counts, np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    if (totals <= 0).any() or (counts < 0).any():
        raise ValueError("every chain needs rows")
    p, truth = counts / totals, np.asarray(truth, np.float64) / np.sum(truth)
    order = np.argsort(truth, kind="stable")
    order = order[truth[order] > 0]
    rare = order[: max(1, int(np.searchsorted(truth[order].cumsum(), TAIL, side="right")))]
    is_there = truth > 0
    return {
        "gini_simpson": 1 - (p**2).sum(axis=1),
        "entropy": -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1),
        "types_kept": ((p > 0) & is_there).sum(axis=1) / is_there.sum(),
        "unseen": np.where(p > 0, 0, truth).sum(axis=1),
        "total_variation": np.abs(p - truth).sum(axis=1) / 2,
        "tail": p[:, rare].sum(axis=1) / truth[rare].sum(),
    }


def summary(values: np.ndarray) -> dict[str, Any]:
    """A metric over chains: mean, standard error, median, 5% and 95% quantiles, mean of logs; chains not finite are
    counted and left out. None where nothing is left; log_mean None where a value is 0 or less."""
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    found: dict[str, Any] = {"num_chains": len(values), "num_degenerate": len(values) - len(known)}
    if not len(known):
        return found | dict.fromkeys(
            ("mean", "standard_error", "median", "q05", "q95", "log_mean", "log_standard_error")
        )
    root = np.sqrt(len(known))
    q05, median, q95 = (float(q) for q in np.quantile(known, [0.05, 0.5, 0.95]))
    logs = np.log(known) if (known > 0).all() else None
    return found | {
        "mean": float(known.mean()),
        "standard_error": float(known.std(ddof=1) / root) if len(known) > 1 else None,
        "median": median,
        "q05": q05,
        "q95": q95,
        "log_mean": None if logs is None else float(logs.mean()),
        "log_standard_error": float(logs.std(ddof=1) / root) if logs is not None and len(known) > 1 else None,
    }
