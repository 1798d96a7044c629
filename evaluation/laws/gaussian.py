"""Gaussian chains that replace all rows: v_{k+1} = v_k chi2_{n-1} / n and mu_{k+1} = mu_k + sqrt(v_k / n) z.

Variances are in units of the true variance, means in units of its root. n: rows per generation; k: generation, 1 for
the first model. `estimator`: "mle" divides the sum of squares by n, "unbiased" by n - 1. `bias`: the variance of
sampled rows over the variance of the model (lambda of Alemohammad et al. 2024, section 5). It acts k - 1 times, from
generation 2 on. All functions raise ValueError for n < 2.
"""

import math
from typing import Literal

from scipy.special import digamma, gammaln, polygamma

Estimator = Literal["mle", "unbiased"]


def divisor(n: int, estimator: Estimator = "mle") -> int:
    """Divisor of the sum of squares: n, or n - 1."""
    if n < 2:
        raise ValueError(f"a variance needs at least 2 rows, not {n}")
    if estimator not in ("mle", "unbiased"):
        raise ValueError(f"estimator must be 'mle' or 'unbiased', not {estimator!r}")
    return n if estimator == "mle" else n - 1


def mean_variance(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """E v_k = (1 - 1/n)^k (MLE), 1 (unbiased); times bias^(k-1). Alemohammad et al. 2024, equation 2, for the bias."""
    return ((n - 1) / divisor(n, estimator)) ** k * bias ** (k - 1)


def mean_std(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """E sqrt(v_k) = c^k, c = sqrt(2/divisor) Gamma(n/2) / Gamma((n-1)/2); unbiased: c4(n), alpha(n) of Bertrand et al.
    2024."""
    log_c = 0.5 * math.log(2 / divisor(n, estimator)) + gammaln(n / 2) - gammaln((n - 1) / 2)
    return math.exp(k * float(log_c)) * bias ** ((k - 1) / 2)


def log_drift(n: int, estimator: Estimator = "mle") -> float:
    """E log(v_{k+1}/v_k) = psi((n-1)/2) + ln(2/divisor), near -2/n (MLE) and -1/n (unbiased). Mean of log chi2."""
    return float(digamma((n - 1) / 2)) + math.log(2 / divisor(n, estimator))


def log_noise(n: int) -> float:
    """Var log(v_{k+1}/v_k) = psi'((n-1)/2), near 2/(n-2). Variance of log chi2."""
    divisor(n)
    return float(polygamma(1, (n - 1) / 2))


def mean_spread(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """Var mu_k over chains, sum_{j<k} (r bias)^j / n with r = (n-1)/divisor: 1 - (1-1/n)^k (MLE), k/n (unbiased).
    Derived here: mu_{j+1} - mu_j has variance bias E v_j / n."""
    rate = (n - 1) / divisor(n, estimator) * bias
    return k / n if rate == 1 else (1 - rate**k) / (1 - rate) / n


def total_variance(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """E v_k + Var mu_k: the variance about the true mean of a row of model k, over all chains. 1 for the MLE without
    bias, whatever k and n (law of total variance, derived here); 1 + k/n unbiased (Shumailov et al. 2024, supplement).
    """
    return mean_variance(n, k, estimator, bias) + mean_spread(n, k, estimator, bias)


def w2_squared(n: int, k: int, estimator: Estimator = "mle", bias: float = 1.0) -> float:
    """E W2(model k, truth)^2 = Var mu_k + E v_k - 2 E sqrt(v_k) + 1. Derived here from W2 of two Gaussians (Dowson and
    Landau 1982); to first order 3k/(2n)."""
    return total_variance(n, k, estimator, bias) - 2 * mean_std(n, k, estimator, bias) + 1


def log_det_drift(n: int, d: int, estimator: Estimator = "mle") -> float:
    """E log(det S_{k+1} / det S_k) = sum_{i=1..d} [psi((n-i)/2) + ln(2/divisor)] in d dimensions, n > d: Bartlett's
    decomposition of a Wishart matrix, derived here. Raises ValueError for n <= d."""
    _enough(n, d)
    return sum(float(digamma((n - i) / 2)) + math.log(2 / divisor(n, estimator)) for i in range(1, d + 1))


def log_det_noise(n: int, d: int) -> float:
    """Var log(det S_{k+1} / det S_k) = sum_{i=1..d} psi'((n-i)/2), as above."""
    _enough(n, d)
    return sum(float(polygamma(1, (n - i) / 2)) for i in range(1, d + 1))


def _enough(n: int, d: int) -> None:
    if n <= d:
        raise ValueError(f"a covariance of {d} dimensions needs more than {d} rows, not {n}")


def trace_moments(
    n: int, k: int, squares: float, estimator: Estimator = "mle", bias: float = 1.0
) -> tuple[float, float]:
    """(mean, variance) over chains of tr S_k / tr S_0, where `squares` is tr(S_0^2) / (tr S_0)^2: 1/d for a round
    truth.

    Second moments of a Wishart matrix W of m = n-1 degrees: E (tr W)^2 = m^2 (tr S)^2 + 2m tr S^2 and E tr W^2 = m
    (tr S)^2 + m(m+1) tr S^2 (Muirhead 1982, chapter 3), iterated; derived here.
    """
    m, scale = n - 1, divisor(n, estimator)
    of_trace, of_squares = 1.0, squares
    for _ in range(k):
        of_trace, of_squares = m * m * of_trace + 2 * m * of_squares, m * of_trace + m * (m + 1) * of_squares
        of_trace, of_squares = of_trace / scale**2, of_squares / scale**2
    mean = mean_variance(n, k, estimator, bias)
    return mean, max(0.0, of_trace * bias ** (2 * (k - 1)) - mean**2)
