"""Confidence intervals of shares, AUCs and means."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, t

LEVEL = 0.95


def clopper_pearson(num_hits: int, num: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934), which covers it with probability `level` or more."""
    if not 0 <= num_hits <= num or num == 0:
        raise ValueError(f"{num_hits} of {num} is no share")
    rest = (1 - level) / 2
    low = 0.0 if num_hits == 0 else float(beta.ppf(rest, num_hits, num - num_hits + 1))
    high = 1.0 if num_hits == num else float(beta.ppf(1 - rest, num_hits + 1, num - num_hits))
    return low, high


def auc_by_chance(num_positive: int, num_negative: int) -> tuple[float, float]:
    """The 95 % interval of the AUC of a random score, with the variance of Mann and Whitney (1947)."""
    deviation = math.sqrt((num_positive + num_negative + 1) / (12 * num_positive * num_negative))
    return max(0.0, 0.5 - 1.96 * deviation), min(1.0, 0.5 + 1.96 * deviation)


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float | None]:
    """(mean, half the width of Student's interval of the mean); None for a single value."""
    if not values:
        raise ValueError("no values")
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, error * float(t.ppf(0.5 + level / 2, len(values) - 1))
