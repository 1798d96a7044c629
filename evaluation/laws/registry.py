"""Laws by setting and statistic, which a study compares with its results."""

import math
from dataclasses import dataclass

from gristmill.evaluation.laws import discrete, gaussian, regression
from gristmill.evaluation.laws.chain import Setting, moments
from gristmill.evaluation.laws.precision import MEAN_UNTIL, wear

LEDGER = "law of total variance over the ledger of row products, derived here (evaluation/laws/ledger.py)"
OF_VARIANCE = ("variance", "variance_trace", "gini_simpson")
STATISTICS = (
    *OF_VARIANCE,
    "mean_variance_between",  # E |mu_k - mu_0|^2: the variance of the model's mean between chains
    "total_variance",  # of a row of model k about the true mean: variance + mean_variance_between
    "std",
    "log_variance",
    "log_det",
    "w2_squared",  # to the truth
    "support",  # types that the model still has
    "test_error",  # excess risk of a regression
)
MATCHES = {
    "gaussian": {"variance", "variance_trace", "mean_variance_between", "total_variance"},
    "gmm": {"variance", "variance_trace", "mean_variance_between", "total_variance"},
    "kde": {"variance", "variance_trace", "mean_variance_between", "total_variance"},
    "multinomial": {"gini_simpson", "mean_variance_between", "total_variance"},
}


@dataclass(frozen=True)
class Law:
    """The expectation of a statistic over chains in one generation.

    `deviation` is the standard deviation across chains, where it is known. Only an exact law can fail a study.
    """

    expected: float
    deviation: float | None
    is_exact: bool
    source: str


def laws(setting: Setting, statistic: str, generations: int) -> list[Law] | None:
    """The laws of generations 1 .. `generations`; None when a generation has no known law.

    Raises ValueError for an unknown statistic.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"unknown statistic '{statistic}'; known: {', '.join(STATISTICS)}")
    if generations < 1:
        raise ValueError("generations count from 1")
    if setting.family == "linear_regression":
        return _of_regression(setting, generations) if statistic == "test_error" else None
    if statistic == "support":
        return _of_support(setting, generations)
    if statistic in ("std", "log_variance", "log_det", "w2_squared"):
        return _of_gaussian(setting, statistic, generations)
    if statistic not in MATCHES[setting.family] or (statistic == "variance" and setting.d > 1):
        return None
    if setting.family == "multinomial" and setting.bias != 1:  # a temperature is not a factor on the variance
        return None
    if setting.family != "gaussian" and setting.estimator != "mle":
        return None
    by_generation = moments(setting, generations)
    if by_generation is None:
        return None
    curve = []
    for k, moment in enumerate(by_generation, 1):
        if statistic in OF_VARIANCE:
            value = moment.variance
        else:
            value = moment.spread + (moment.variance if statistic == "total_variance" else 0.0)
        deviation = _deviation(setting, k) if statistic in OF_VARIANCE else None
        curve.append(Law(setting.truth * value, deviation, True, LEDGER))
    return curve


def is_plain(setting: Setting) -> bool:
    """Whether each generation replaces all rows by as many rows of the last model."""
    return setting.pool == "replace" and setting.real == "none" and setting.growth == 1


def use_log(setting: Setting, generation: int) -> bool:
    """Whether the test uses the mean of log v instead of the mean of v.

    CV^2 of v_k grows like exp(2k/n) - 1, so later the mean over any number of chains is below its expectation, while
    log v has the variance 2k/n only. Chains with a plateau (accumulate, fresh rows) never need the logarithm.
    """
    wear_so_far = wear([setting.rows(k) for k in range(1, generation + 1)])
    return setting.pool == "replace" and setting.real == "none" and wear_so_far > MEAN_UNTIL


def _deviation(setting: Setting, k: int) -> float | None:
    """Standard deviation of the variance (of the trace in d dimensions) across chains."""
    if setting.family != "gaussian" or not is_plain(setting) or setting.n < 2:
        return None
    squares = 1.0 if setting.d == 1 else setting.truth_squares
    if squares is None:
        return None
    variance = gaussian.trace_moments(setting.n, k, squares, setting.estimator, setting.bias)[1]
    return setting.truth * math.sqrt(variance)


def _of_gaussian(setting: Setting, statistic: str, generations: int) -> list[Law] | None:
    """Laws from the distribution of v_k, a product of independent chi2 variables."""
    if setting.family != "gaussian" or setting.pool != "replace" or setting.real != "none":
        return None
    sizes = [setting.rows(k) for k in range(1, generations + 1)]
    if min(sizes) <= setting.d or setting.bias == 0:
        return None
    if statistic == "log_det" or (statistic == "log_variance" and setting.d == 1):
        return _of_log(setting, sizes)
    if setting.d > 1 or not is_plain(setting) or statistic == "log_variance":
        return None
    curve, key = [], (setting.estimator, setting.bias)
    for k in range(1, generations + 1):
        if statistic == "std":
            value, mean = gaussian.mean_std(setting.n, k, *key), gaussian.mean_variance(setting.n, k, *key)
            deviation = math.sqrt(setting.truth * max(0.0, mean - value**2))
            curve.append(Law(math.sqrt(setting.truth) * value, deviation, True, "moments of chi; Bertrand et al. 2024"))
        else:
            value = setting.truth * gaussian.w2_squared(setting.n, k, *key)
            curve.append(
                Law(value, None, True, "derived here; to first order Shumailov et al. 2024, supplement, eq. 6")
            )
    return curve


def _of_log(setting: Setting, sizes: list[int]) -> list[Law] | None:
    start = setting.truth_log_det
    if start is None:
        if setting.d > 1 or setting.truth == 0:
            return None
        start = math.log(setting.truth)
    curve, mean, variance = [], start, 0.0
    for k, n in enumerate(sizes, 1):
        mean += gaussian.log_det_drift(n, setting.d, setting.estimator)
        mean += setting.d * math.log(setting.bias) if k > 1 else 0.0
        variance += gaussian.log_det_noise(n, setting.d)
        curve.append(Law(mean, math.sqrt(variance), True, "mean and variance of log chi2; Bartlett's decomposition"))
    return curve


def _of_support(setting: Setting, generations: int) -> list[Law] | None:
    """Exact for generation 1; later generations by Poisson counts for chains that replace all rows."""
    if setting.family != "multinomial" or not setting.probabilities:
        return None
    p, n = discrete.shares(setting.probabilities), setting.n
    deviation = math.sqrt(max(0.0, discrete.support_variance(p, n)))
    curve = [Law(discrete.support(p, n), deviation, True, "sum of 1 - (1-p)^n")]
    if generations > 1 and (not is_plain(setting) or setting.bias != 1):
        return None
    for k in range(2, generations + 1):
        alive = sum(discrete.survival(n * share, k) for share in p)
        curve.append(Law(float(alive), None, False, "Suresh et al. 2025, Poisson theorem"))
    return curve


def _of_regression(setting: Setting, generations: int) -> list[Law] | None:
    n, d, noise = setting.n, setting.d, setting.truth
    if n <= d + 1 or setting.bias != 1:
        return None
    by_generation = moments(setting, generations)
    if by_generation is not None:
        once = regression.one_fit(n, d, noise)
        source = "Gerstgrasser et al. 2024 for replace and accumulate; others derived here"
        return [Law(once * moment.spread, None, True, source) for moment in by_generation]
    if setting.design != "fresh" or setting.bernoulli or setting.weights != "pooled" or setting.growth != 1:
        return None
    every = range(1, generations + 1)
    if setting.pool == "replace" and setting.real == "none":
        source = "Gerstgrasser et al. 2024, theorem for replaced data"
        return [Law(regression.replace_error(n, d, k, noise), None, True, source) for k in every]
    if setting.pool == "replace" and setting.real == "fresh":
        real = setting.real_rows(2)
        source = "matrix beta moments, derived here (evaluation/laws/regression.py)"
        return [Law(regression.fresh_mix(real, n - real, d, k, noise), None, True, source) for k in every]
    if setting.pool == "accumulate" and setting.real == "none":
        source = "Gerstgrasser et al. 2024, theorem for accumulated data: a fresh design is slightly below"
        return [Law(regression.accumulate_error(n, d, k, noise), None, k == 1, source) for k in every]
    return None
