"""Gaussian chains: spread, median and bounds of the variance, and chains that accumulate."""

import math

from gristmill.evaluation.laws.gaussian import Estimator, divisor, log_drift, mean_variance


def relative_variance(n: int, k: int) -> float:
    """Var v_k / (E v_k)^2 = ((n+1)/(n-1))^k - 1, for both estimators and every bias: moments of chi2."""
    divisor(n)
    return math.expm1(k * math.log((n + 1) / (n - 1)))


def variance_variance(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """Var v_k over chains: (1-1/n^2)^k - (1-1/n)^(2k) for the MLE. Moments of chi2."""
    return relative_variance(n, k) * mean_variance(n, k, estimator, bias) ** 2


def mean_log_variance(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """E log v_k: k drifts, and log(bias) k - 1 times. -inf for bias 0 after the first generation."""
    if bias == 0:
        return -math.inf if k > 1 else log_drift(n, estimator)
    return k * log_drift(n, estimator) + (k - 1) * math.log(bias)


def median_variance(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """exp(E log v_k), about e^(-2k/n) (MLE): exact only in the limit, as log v_k is a sum of k like terms (CLT)."""
    return math.exp(mean_log_variance(n, k, estimator, bias))


def w2_squared_first_order(sizes: list[int]) -> float:
    """(3/2) sum 1/n_j, for small sums: Shumailov et al. 2024, supplement, equation 6. `sizes`: rows of each
    generation."""
    return 1.5 * sum(1 / n for n in sizes)


def tail_bound(n: int, k: int, threshold: float) -> float:
    """Bound on P(sqrt(v_k) > threshold): exp(-k/(4n-1)) / threshold, not above 1. Suresh et al. 2025, Gaussian case."""
    return min(1.0, math.exp(-k / (4 * n - 1)) / threshold)


def accumulated_variance(n: int, k: int) -> float:
    """E v_k when each model learns (MLE) from all k n rows so far: prod_{j=1..k} (1 - 1/(n j^2)). Derived here;
    Kazdan et al. 2025 have the same constant in the limit."""
    return math.prod(1 - 1 / (n * j * j) for j in range(1, k + 1))


def accumulated_limit(n: int) -> float:
    """The limit of that, sin(pi/sqrt n) / (pi/sqrt n) (Euler's product), about 1 - 1.645/n."""
    angle = math.pi / math.sqrt(n)
    return math.sin(angle) / angle
