"""Numbers to levels of their distribution function and back, including ties.

A number that many rows share is a jump of the distribution function. It owns the interval of levels that the jump
spans. Levels drawn uniformly within these intervals make every column uniform and its score normal (the distributional
transform; Rueschendorf 2009). Every level of the interval maps back to the same number. TabDDPM (Kotelnikov et al.
2023) uses scikit-learn's QuantileTransformer, which maps all ties to one point.
"""

import numpy as np

NUM_KNOTS = 1000
EDGE = 1e-6  # smallest distance of levels from 0 and 1, so scores lie within +-4.8


class Spread:
    """`knots`, float64 (3, k): values, shares of rows below each, and shares up to each. Linear between knots."""

    def __init__(self, knots: np.ndarray) -> None:
        self.knots = knots
        self._levels, self._values = knots[1:].T.ravel(), np.repeat(knots[0], 2)

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread":
        """From at least one float64 value without NaN: up to 1,000 distinct values, else 1,000 quantiles."""
        unique, counts = np.unique(values, return_counts=True)
        if len(unique) <= NUM_KNOTS:
            upper = np.cumsum(counts) / len(values)
            return cls(np.stack([unique, np.concatenate([[0.0], upper[:-1]]), upper]))
        levels = np.linspace(0, 1, NUM_KNOTS + 1)
        quantiles = np.quantile(values, levels)
        values_of_knots, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
        return cls(np.stack([values_of_knots, levels[first], levels[first + counts - 1]]))

    def intervals(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lower and upper level of each value; equal if it is no tie."""
        places = np.clip(np.searchsorted(self.knots[0], values), 0, self.knots.shape[1] - 1)
        is_knot = self.knots[0, places] == values
        points = np.interp(values, self._values, self._levels)
        return np.where(is_knot, self.knots[1, places], points), np.where(is_knot, self.knots[2, places], points)

    def values(self, levels: np.ndarray) -> np.ndarray:
        """float64 values at levels in [0, 1]."""
        values: np.ndarray = np.interp(levels, self._levels, self._values)
        return values


def scores(levels: np.ndarray) -> np.ndarray:
    """Normal scores of levels."""
    from scipy.special import ndtri

    normal_scores: np.ndarray = ndtri(np.clip(levels, EDGE, 1 - EDGE))
    return normal_scores


def levels_of(scores: np.ndarray) -> np.ndarray:
    """The inverse of `scores`."""
    from scipy.special import ndtr

    levels: np.ndarray = ndtr(np.asarray(scores, np.float64))
    return levels
