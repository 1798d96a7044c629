"""Generations at which the mean or the median variance crosses a threshold."""

import math

from gristmill.evaluation.laws import gaussian


def crossing(n: int, threshold: float, estimator: gaussian.Estimator = "mle", bias: float = 1.0) -> float | None:
    """The generation at which E v_k crosses the threshold, unrounded: ln(threshold)/ln(1-1/n) for the MLE without bias.
    None when it never does. Two to three times later than most chains: say which is meant."""
    rate = math.log(gaussian.mean_variance(n, 1, estimator)) + (math.log(bias) if bias > 0 else -math.inf)
    start = math.log(bias) if bias > 0 else -math.inf  # the first generation has no bias yet
    if rate >= 0:
        return None
    return 1.0 if rate == -math.inf else max(0.0, (math.log(threshold) + start) / rate)


def median_crossing(n: int, threshold: float, estimator: gaussian.Estimator = "mle", bias: float = 1.0) -> float | None:
    """The same for the median of v_k over chains (CLT): ln(threshold)/drift; None when it never crosses."""
    if bias <= 0:
        return 1.0
    rate = gaussian.log_drift(n, estimator) + math.log(bias)
    return None if rate >= 0 else max(0.0, (math.log(threshold) + math.log(bias)) / rate)
