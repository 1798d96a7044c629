"""Real rows in every generation: plateaus, the cap rule, the golden ratio; two formulas that are wrong."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.evaluation.laws import gaussian
from gristmill.evaluation.laws.precision import check
from gristmill.records.mixing.mixing import golden_weight
from tests.oracles.laws import fresh as oracle


@pytest.mark.parametrize(
    ("n", "real", "plateau"),
    [(10, 0.1, 0.6429), (10, 0.5, 0.875), (100, 0.01, 0.6644), (100, 0.1, 0.9497), (100, 0.5, 0.9868)]
    + [(1000, 0.01, 0.9521), (1000, 0.1, 0.9948)],
)
def test_plateaus(n: int, real: float, plateau: float) -> None:
    assert oracle.plateau(n, real) == pytest.approx(plateau, abs=6e-5)
    assert oracle.variance(n, 3000, real) == pytest.approx(plateau, abs=6e-5)
    assert oracle.plateau(n, real) == pytest.approx(1 - 1 / (n * real * (2 - real) + 1 - real))
    assert abs(oracle.plateau(n, real) - real) > 0.3  # the formula that circulates, real * sigma^2, is wrong


def test_the_other_formula_that_circulates_is_wrong() -> None:
    """sigma_n^2 = (n/(n+1))^n, said to tend to 0, tends to 1/e and takes the generation for the sample size."""
    circulates = (100_000 / 100_001) ** 100_000
    assert circulates == pytest.approx(1 / math.e, rel=1e-4)
    assert gaussian.mean_variance(100, 1000) == pytest.approx(4.3e-5, rel=0.01)


@pytest.mark.parametrize(("n", "real", "bias", "plateau"), [(1000, 0.1, 0.8, 0.3565), (100, 0.1, 0.9, 0.5121)])
def test_biased_plateaus(n: int, real: float, bias: float, plateau: float) -> None:
    assert oracle.plateau(n, real, bias) == pytest.approx(plateau, abs=6e-5)
    random, chains = np.random.default_rng(1), 3000
    num = round(real * n)
    mean, v = np.zeros(chains), np.ones(chains)
    for k in range(60):  # by sufficient statistics of the two parts
        parts = (
            [(n, np.zeros(chains), np.ones(chains))]
            if k == 0
            else [
                (num, np.zeros(chains), np.ones(chains)),
                (n - num, mean, bias * v),
            ]
        )
        sums, squares = np.zeros(chains), np.zeros(chains)
        for size, centre, variance in parts:
            middle = centre + np.sqrt(variance / size) * random.standard_normal(chains)
            sums += size * middle
            squares += size * middle**2 + variance * random.chisquare(size - 1, chains)
        mean = sums / n
        v = squares / n - mean**2
    assert abs(check(v, oracle.variance(n, 60, real, bias)).z) <= 4
    assert abs(check(v, oracle.plateau(n, real, bias)).z) <= 4


@given(st.integers(2, 5000), st.floats(0.01, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_the_plateau_is_where_steps_end(n: int, real: float, bias: float) -> None:
    inside = oracle.plateau(n, real, bias)
    within = real + (1 - real) * bias * inside
    spread = within / n / (real * (2 - real))
    assert oracle.step(n, real, spread, inside, bias) == pytest.approx((spread, inside))
    assert oracle.plateau(n, real) >= inside
    drawn_in = [abs(oracle.variance(n, k, real) - oracle.plateau(n, real)) for k in (1, 2)]
    assert drawn_in[1] == pytest.approx(abs(oracle.memory(n, real)) * drawn_in[0], abs=1e-12)


def test_cap_rule() -> None:
    for bias, real in ((0.99, 0.083), (0.9, 0.474), (0.8, 0.643)):
        assert oracle.least_real(0.9, bias) == pytest.approx(real, abs=5e-4)
    assert oracle.least_real(0.9, 1.0) == 0


@given(st.floats(0.01, 0.99), st.floats(0, 0.99))
def test_cap_rule_is_the_plateau_of_many_rows(variance: float, bias: float) -> None:
    real = oracle.least_real(variance, bias)
    assert oracle.plateau(10**9, real, bias) == pytest.approx(variance, rel=1e-4)


def test_rows_needed_and_gain() -> None:
    assert oracle.rows_needed(0.05, 0.01) == pytest.approx(955, abs=1)
    n = oracle.rows_needed(0.05, 0.2)
    assert 1 - 1 / (n * 0.2 * 1.8 + 0.8) == pytest.approx(0.95)
    assert (1 - oracle.plateau(10**6, 0.25)) * 10**6 * 0.25 == pytest.approx(oracle.gain(0.25), rel=1e-4)


def test_helpful_rows_do_not_depend_on_the_real_ones() -> None:
    assert oracle.helpful_rows(0.7) == pytest.approx(85, abs=0.5)
    assert oracle.helpful_rows(0.85) == pytest.approx(305, abs=0.5)
    assert oracle.helpful_rows(1.0) == math.inf


@pytest.mark.parametrize(("ratio", "best", "pooled"), [(1, 0.6180, 2 / 3), (0.25, 0.3904, 0.5556), (4, 0.8284, 0.8333)])
def test_golden_ratio(ratio: float, best: float, pooled: float) -> None:
    weight = golden_weight(ratio)
    assert weight == pytest.approx(best, abs=5e-5)
    assert oracle.weighted_error(weight, ratio) == pytest.approx(weight)
    assert oracle.pooled_error(ratio) == pytest.approx(pooled, abs=5e-5)
    assert oracle.weighted_error(ratio / (1 + ratio), ratio) == pytest.approx(oracle.pooled_error(ratio))


@given(st.floats(0.01, 50), st.floats(0.01, 1))
def test_no_weight_is_better_than_the_golden_one(ratio: float, weight: float) -> None:
    best = oracle.weighted_error(golden_weight(ratio), ratio)
    assert best <= oracle.weighted_error(weight, ratio) * (1 + 1e-9)
    assert best <= oracle.pooled_error(ratio) and best <= 1


@pytest.mark.parametrize("weight", [0.3, 0.618, 0.9])
def test_weighted_error_by_monte_carlo(weight: float) -> None:
    n, m, chains, random = 40, 80, 20_000, np.random.default_rng(6)
    theta = np.zeros(chains)
    for _ in range(60):
        synthetic = theta + random.standard_normal(chains) / math.sqrt(m)
        theta = weight * random.standard_normal(chains) / math.sqrt(n) + (1 - weight) * synthetic
    assert abs(check(n * theta**2, oracle.weighted_error(weight, n / m)).z) <= 4


def test_what_has_no_limit_is_refused() -> None:
    for wrong in (
        lambda: oracle.plateau(100, 0.0),
        lambda: oracle.plateau(100, 0.1, 1.3),
        lambda: oracle.least_real(1.0, 0.5),
        lambda: oracle.weighted_error(0.0, 1.0),
    ):
        with pytest.raises(ValueError, match="."):
            wrong()
