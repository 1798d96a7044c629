"""Categories: a model is the vector of shares of n rows. Population genetics calls it a haploid Wright-Fisher chain.

The Gini-Simpson index H = 1 - sum p^2 is the variance of a category. So it follows the laws of the MLE variance, times
the index of the truth, in every regime (laws/registry.py); for replace it is H_0 (1-1/n)^k.
"""

import math
from collections.abc import Sequence

import numpy as np


def shares(probabilities: np.ndarray | Sequence[float]) -> np.ndarray:
    """Probabilities as float64, scaled to the sum 1. Raises ValueError for negative or infinite numbers, or all 0."""
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not len(p) or not np.isfinite(p).all() or (p < 0).any() or not p.sum() > 0:
        raise ValueError("probabilities must be a vector of finite numbers of at least 0, not all 0")
    return p / p.sum()


def missing(probabilities: np.ndarray, n: int) -> np.ndarray:
    """Probability of each type to be absent after one generation, (1-p)^n."""
    absent: np.ndarray = (1 - shares(probabilities)) ** n
    return absent


def support(probabilities: np.ndarray, n: int) -> float:
    """The expected number of types after one generation, sum 1 - (1-p)^n."""
    return float((1 - missing(probabilities, n)).sum())


def support_variance(probabilities: np.ndarray, n: int) -> float:
    """Variance of the number of types after one generation.

    It is the sum over pairs of P(both missing) - P(i missing) P(j missing), with P(both missing) = (1-p_i-p_j)^n.
    """
    p = shares(probabilities)
    gone = missing(p, n)
    both = np.clip(1 - p[:, None] - p[None], 0, 1) ** n - np.outer(gone, gone)
    np.fill_diagonal(both, gone * (1 - gone))
    return float(both.sum())


def survival_factor(k: int) -> float:
    """1 - e^-x composed with itself k times, at infinity: 1 for k = 1, in [1/k, 3/k], near 2/k. Suresh et al. 2025."""
    g = math.inf
    for _ in range(k):
        g = -math.expm1(-g)
    return g


def survival(count: float, k: int) -> float:
    """P(a type of `count` expected rows is alive after k generations) = 1 - exp(-count g_k) for Poisson counts (Suresh
    et al. 2025, Poisson theorem). For a type with c observed rows, count generations from there and set count = c."""
    return -math.expm1(-count * survival_factor(k))
