"""Types that a model never sees are lost (Dohmatob et al. 2024, "A tale of tails").

The error of a model that knows only the types in its rows is the true share of all other types.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gristmill.evaluation.laws.discrete import shares


def unseen(probabilities: np.ndarray, n: int) -> float:
    """Expected true share of the types that n rows miss, sum p (1-p)^n; exact."""
    p = shares(probabilities)
    return float((p * (1 - p) ** n).sum())


def unseen_after(probabilities: np.ndarray, sizes: Sequence[int]) -> float:
    """Expected true share of the types that are lost after generations of `sizes` rows that replace all rows.

    sum p exp(-n_1 p h), h = composition of 1 - exp(-(n_{j+1}/n_j) h) from the last generation: with Poisson
    counts, so its error is of order p. Derived here, from the branching argument of Suresh et al. 2025. With sizes
    T0, T it is the plateau of a generator that has seen T0 rows.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError("every generation needs at least one row")
    h = 1.0
    for size, after in reversed(list(pairwise(sizes))):
        h = -math.expm1(-after / size * h)
    p = shares(probabilities)
    return float((p * np.exp(-sizes[0] * p * h)).sum())
