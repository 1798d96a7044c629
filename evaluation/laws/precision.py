"""How many chains a statement needs, which statistic to make it of, and how far an estimate is from its law."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MEAN_UNTIL = 0.3  # sum of 1/n over the generations: beyond it the mean of v over chains hangs on a few of them
SURE = 4.0  # |z| above this fails a study: one in 16,000 by chance


def wear(sizes: Sequence[int]) -> float:
    """Sum of 1/n over the generations that replaced everything; k/n for equal sizes."""
    return math.fsum(1 / n for n in sizes)


def chains_for(value: float, deviation: float, relative_error: float) -> int:
    """Chains until the standard error of a mean is `relative_error` of `value`, when one chain deviates by so much."""
    if not value or not math.isfinite(value):
        raise ValueError("a relative error needs a finite value other than 0")
    return max(1, math.ceil((deviation / (relative_error * value)) ** 2))


@dataclass(frozen=True)
class Check:
    """An estimate over chains beside its law. `z` is (estimate - expected) / standard_error, never NaN."""

    expected: float
    estimate: float
    standard_error: float
    z: float
    num_chains: int

    @property
    def is_passed(self) -> bool:
        return abs(self.z) <= SURE


def check(values: np.ndarray, expected: float, deviation: float | None = None, slack: float = 1e-12) -> Check:
    """Hold one number a chain, float64 (chains,), against the law's expectation.

    The standard error comes from the law's own deviation across chains where it is known (a heavy tail makes the
    sample's too small), else from the sample's. `slack`: a relative difference that counts as none, for chains
    without spread. Raises ValueError for fewer than two chains without a known deviation, or for values that are not
    finite.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("values must be finite, one for each chain")
    if deviation is None and len(values) < 2:
        raise ValueError("a standard error needs two chains")
    estimate = float(values.mean())
    spread = float(values.std(ddof=1)) if deviation is None else deviation
    error = spread / math.sqrt(len(values))
    gap = estimate - expected
    if abs(gap) <= slack * max(1.0, abs(expected)):
        z = 0.0
    else:
        z = gap / error if error > 0 else math.copysign(math.inf, gap)
    return Check(expected, estimate, error, z, len(values))
