"""Gaussian chains against Monte Carlo of their sufficient statistics, and the published numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.laws import gaussian as law
from gristmill.evaluation.laws import passage
from gristmill.evaluation.laws.precision import check
from tests.oracles.laws import gaussian as oracle_gaussian
from tests.oracles.laws import passage as oracle_passage

CHAINS = 20_000
ESTIMATORS: list[law.Estimator] = ["mle", "unbiased"]


def chains(n: int, k: int, estimator: law.Estimator, bias: float, seed: int, num: int = CHAINS) -> tuple:
    """(mean, variance) of model k, each (num,)."""
    random = np.random.default_rng(seed)
    mean, variance, drawn = np.zeros(num), np.ones(num), np.ones(num)
    for _ in range(k):
        mean = mean + np.sqrt(drawn / n) * random.standard_normal(num)
        variance = drawn * random.chisquare(n - 1, num) / law.divisor(n, estimator)
        drawn = bias * variance
    return mean, variance


def passes(values: np.ndarray, expected: float) -> bool:
    return abs(check(values, expected).z) <= 4


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("n", "k", "bias"), [(2, 1, 1.0), (10, 3, 1.0), (10, 4, 0.7), (100, 25, 1.0), (30, 8, 1.1)])
def test_moments(estimator: law.Estimator, n: int, k: int, bias: float) -> None:
    mean, v = chains(n, k, estimator, bias, seed=n + k)
    case = (n, k, estimator, bias)
    expected = law.mean_variance(*case)
    assert passes(v, expected)
    assert passes((v - expected) ** 2, oracle_gaussian.variance_variance(*case))
    assert passes(np.sqrt(v), law.mean_std(*case))
    assert passes(mean**2, law.mean_spread(*case))
    assert passes(mean**2 + v, law.total_variance(*case))
    assert passes(mean**2 + (np.sqrt(v) - 1) ** 2, law.w2_squared(*case))
    logs = np.log(v)
    assert passes(logs, oracle_gaussian.mean_log_variance(*case))
    assert passes((logs - oracle_gaussian.mean_log_variance(*case)) ** 2, k * law.log_noise(n))


def test_the_median_is_the_exponential_of_the_drift_in_the_limit() -> None:
    _, v = chains(100, 100, "mle", 1.0, 5)
    share_below = (v < oracle_gaussian.median_variance(100, 100)).mean()
    assert abs(share_below - 0.5) < 0.02  # 4 standard errors are 0.014; the law is a limit


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_in_many_dimensions(estimator: law.Estimator) -> None:
    n, d, k, bias = 9, 3, 4, 0.9
    random = np.random.default_rng(3)
    roots = np.diag([1.0, 2.0, 0.5])  # of the true covariance
    truth = roots @ roots.T
    start = math.log(np.linalg.det(truth))
    covariance = np.broadcast_to(truth, (CHAINS, d, d))
    for step in range(k):
        root = np.linalg.cholesky(covariance * (bias if step else 1))
        rows = random.standard_normal((CHAINS, n, d))
        rows -= rows.mean(axis=1, keepdims=True)
        apart = np.einsum("cij,cnj->cni", root, rows)
        covariance = np.einsum("cni,cnj->cij", apart, apart) / law.divisor(n, estimator)
    logs = np.linalg.slogdet(covariance)[1] - start - (k - 1) * d * math.log(bias)
    drift = k * law.log_det_drift(n, d, estimator)
    assert passes(logs, drift)
    assert passes((logs - drift) ** 2, k * law.log_det_noise(n, d))
    whole = np.trace(truth)
    mean, variance = law.trace_moments(n, k, np.trace(truth @ truth) / whole**2, estimator, bias)
    traces = np.trace(covariance, axis1=1, axis2=2) / whole
    assert passes(traces, mean)
    assert passes((traces - mean) ** 2, variance)


def test_numbers_at_a_thousand_rows() -> None:
    assert law.log_drift(1000) == pytest.approx(-0.00200184, abs=5e-9)
    assert law.log_drift(1000, "unbiased") == pytest.approx(-0.00100134, abs=5e-9)
    assert law.log_noise(1000) == pytest.approx(0.00200401, abs=5e-9)


@pytest.mark.parametrize(
    ("threshold", "mean", "medians", "passages"),
    [
        (0.5, 692.8, (346, 692), ((359, 216, 52, 1156), (718, 312))),
        (0.01, 4602.9, (2300, 4599), ((2314, 2091, 1016, 4370), (4625, 3820))),
    ],
)
def test_when_a_thousand_rows_collapse(threshold: float, mean: float, medians: tuple, passages: tuple) -> None:
    """Three answers to "in how many generations", which differ by a factor of three."""
    assert oracle_passage.crossing(1000, threshold) == pytest.approx(mean, abs=0.1)
    assert oracle_passage.crossing(1000, threshold, "unbiased") is None
    for estimator, median, numbers in zip(ESTIMATORS, medians, passages):
        assert oracle_passage.median_crossing(1000, threshold, estimator) == pytest.approx(median, abs=1)
        first = passage.first_passage(1000, threshold, estimator)
        found = (first.mean, first.median, first.quantile(0.05), first.quantile(0.95))
        assert found[: len(numbers)] == pytest.approx(numbers, abs=1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_first_passage_by_monte_carlo(estimator: law.Estimator) -> None:
    n, threshold, num = 100, 0.5, 10_000
    random = np.random.default_rng(11)
    logs, when = np.zeros(num), np.full(num, np.inf)
    for k in range(1, 800):
        alive = np.flatnonzero(np.isinf(when))
        logs[alive] += np.log(random.chisquare(n - 1, len(alive)) / law.divisor(n, estimator))
        when[alive[logs[alive] < math.log(threshold)]] = k
    found = passage.first_passage(n, threshold, estimator)
    assert np.median(when) == pytest.approx(found.median, rel=0.04)
    assert np.isfinite(when).mean() == pytest.approx(found.passage_share(799), abs=0.01)
    for share in (0.25, 0.75):
        assert np.quantile(when, share) == pytest.approx(found.quantile(share), rel=0.05)


def test_accumulating_numbers() -> None:
    for n, limit in ((5, 0.7020), (10, 0.8434), (100, 0.98363)):
        assert oracle_gaussian.accumulated_limit(n) == pytest.approx(limit, abs=5e-5)
        assert oracle_gaussian.accumulated_variance(n, 20_000) == pytest.approx(
            oracle_gaussian.accumulated_limit(n), abs=1e-4
        )
    assert 1 - oracle_gaussian.accumulated_limit(10_000) == pytest.approx(math.pi**2 / 6 / 10_000, rel=1e-3)


def test_accumulating_by_monte_carlo() -> None:
    """By sufficient statistics of the pool: n more rows from N(mu, v) change its mean and square."""
    n, k, random = 6, 12, np.random.default_rng(2)
    size, mean, square = 0, np.zeros(CHAINS), np.zeros(CHAINS)
    centre, v = np.zeros(CHAINS), np.ones(CHAINS)
    for _ in range(k):
        new = centre + np.sqrt(v / n) * random.standard_normal(CHAINS)
        within = v * random.chisquare(n - 1, CHAINS)
        square = square + within + size * n / (size + n) * (new - mean) ** 2
        mean = (size * mean + n * new) / (size + n)
        size += n
        centre, v = mean, square / size
    assert passes(v, oracle_gaussian.accumulated_variance(n, k))


def test_bound_on_the_tail_holds() -> None:
    for n, k, threshold in ((5, 40, 0.3), (10, 100, 0.1), (3, 30, 0.2)):
        for estimator in ESTIMATORS:
            _, v = chains(n, k, estimator, 1.0, 4)
            assert (np.sqrt(v) > threshold).mean() <= oracle_gaussian.tail_bound(n, k, threshold) + 0.02
    assert oracle_gaussian.tail_bound(10, 1, 0.01) == 1


@given(st.integers(2, 10_000), st.integers(1, 300))
def test_limits_and_order(n: int, k: int) -> None:
    assert law.total_variance(n, k) == pytest.approx(1)
    assert law.mean_variance(n, k) + law.mean_spread(n, k) == pytest.approx(1)
    assert law.mean_variance(n, k, "unbiased") == 1 and law.mean_spread(n, k, "unbiased") == pytest.approx(k / n)
    assert (
        oracle_gaussian.median_variance(n, k)
        <= law.mean_std(n, k) ** 2 * (1 + 1e-9)
        <= law.mean_variance(n, k) * (1 + 2e-9)
    )
    assert law.mean_variance(n, k) * (1 - 1e-12) <= oracle_gaussian.accumulated_variance(n, k)
    assert oracle_gaussian.accumulated_variance(n, k) > oracle_gaussian.accumulated_limit(n) - 1e-12
    one, many = law.log_det_drift(n, 1), law.log_drift(n)
    assert one == pytest.approx(many)
    assert law.trace_moments(n, k, 1.0)[1] == pytest.approx(
        oracle_gaussian.variance_variance(n, k), rel=1e-6, abs=1e-300
    )


def test_first_order_is_right_for_many_rows() -> None:
    for estimator in ESTIMATORS:
        assert law.w2_squared(100_000, 20, estimator) == pytest.approx(
            oracle_gaussian.w2_squared_first_order([100_000] * 20), rel=1e-3
        )


def test_what_is_not_defined_is_refused() -> None:
    for wrong in (
        lambda: law.mean_variance(1, 1),
        lambda: law.divisor(5, "map"),
        lambda: law.log_det_drift(3, 3),
        lambda: passage.first_passage(100, 1.5),
        lambda: passage.first_passage(100, 0.5, bias=1.5),
        lambda: passage.first_passage(100, 0.5, bias=0.0),
    ):
        with pytest.raises(ValueError, match="."):
            wrong()
    assert oracle_passage.crossing(100, 0.5, bias=0.0) == 1
    assert oracle_passage.median_crossing(100, 0.5, bias=2.0) is None
    assert oracle_gaussian.mean_log_variance(10, 2, bias=0.0) == -math.inf
