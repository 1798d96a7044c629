"""When one chain's variance first falls below a threshold: an inverse Gaussian, as log v_k is nearly a Brownian path.

Not exact: log v_k is taken for normal and 0.5826 is Siegmund's correction (1979) for steps that overshoot. Derived
here, for Gaussian chains with everything replaced; within 3 % of Monte Carlo for n = 100 and more.
"""

import math
from dataclasses import dataclass

from scipy.stats import invgauss

from gristmill.evaluation.laws import gaussian

OVERSHOOT = 0.5826  # -zeta(1/2) / sqrt(2 pi)


@dataclass(frozen=True)
class FirstPassage:
    """Mean and shape of an inverse Gaussian, in generations."""

    mean: float
    shape: float

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """By this generation the share of the chains has passed."""
        return float(invgauss.ppf(share, self.mean / self.shape, scale=self.shape))

    def passed(self, k: float) -> float:
        """The share of the chains that has passed by generation k."""
        return float(invgauss.cdf(k, self.mean / self.shape, scale=self.shape))


def first_passage(n: int, threshold: float, estimator: gaussian.Estimator = "mle", bias: float = 1.0) -> FirstPassage:
    """Of v_k below `threshold` (of the true variance): boundary a = -ln(threshold) + 0.5826 sqrt(psi'), mean a/|drift|,
    shape a^2/psi'. Raises ValueError for a threshold outside (0, 1), or when the drift is not downwards."""
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold must lie in (0, 1), not {threshold}")
    drift = gaussian.log_drift(n, estimator) + (math.log(bias) if bias > 0 else -math.inf)
    if not -math.inf < drift < 0:
        raise ValueError(f"n = {n}, bias = {bias}: log v does not drift downwards by a finite step")
    noise = gaussian.log_noise(n)
    boundary = -math.log(threshold) + OVERSHOOT * math.sqrt(noise)
    return FirstPassage(boundary / -drift, boundary**2 / noise)
