"""Number of chains for a precision, choice of the statistic, and distance of an estimate from its law."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MEAN_UNTIL = 0.3  # wear above which a few chains decide the mean of v over chains
SURE = 4.0  # a larger |z| fails a study; by chance it happens once in 16,000 tests


def wear(sizes: Sequence[int]) -> float:
    """Sum of 1/n over the generations of a chain that replaces all rows; k/n for equal sizes."""
    return math.fsum(1 / n for n in sizes)


def chains_for(value: float, deviation: float, relative_error: float) -> int:
    """Number of chains until the standard error of a mean is `relative_error` of `value`.

    `deviation` is the standard deviation across chains. Raises ValueError for a value that is 0 or not finite.
    """
    if not value or not math.isfinite(value):
        raise ValueError("a relative error needs a finite value other than 0")
    return max(1, math.ceil((deviation / (relative_error * value)) ** 2))


@dataclass(frozen=True)
class Check:
    """An estimate over chains and its law. `z` is (estimate - expected) / standard_error and never NaN."""

    expected: float
    estimate: float
    standard_error: float
    z: float
    num_chains: int

    @property
    def is_passed(self) -> bool:
        return abs(self.z) <= SURE


def check(values: np.ndarray, expected: float, deviation: float | None = None, slack: float = 1e-12) -> Check:
    """Compare one number per chain, float64 (chains,), with the expectation of the law.

    The standard error comes from the deviation of the law where it is known (heavy tails make the deviation of a sample
    too small), else from the sample. `slack` is a relative difference that counts as 0, for chains without spread.
    Raises ValueError for fewer than two chains without a deviation, and for values that are not finite.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("values must be finite, one per chain")
    if deviation is None and len(values) < 2:
        raise ValueError("a standard error needs at least two chains")
    estimate = float(values.mean())
    spread = float(values.std(ddof=1)) if deviation is None else deviation
    error = spread / math.sqrt(len(values))
    gap = estimate - expected
    if abs(gap) <= slack * max(1.0, abs(expected)):
        z = 0.0
    else:
        z = gap / error if error > 0 else math.copysign(math.inf, gap)
    return Check(expected, estimate, error, z, len(values))
