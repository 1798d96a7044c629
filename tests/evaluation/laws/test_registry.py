"""What a study is told: a law, its deviation, or that there is none; and how many chains it needs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gristmill.evaluation.laws import discrete, gaussian, precision
from gristmill.evaluation.laws.chain import Setting
from gristmill.evaluation.laws.precision import check
from gristmill.evaluation.laws.registry import STATISTICS, Law, laws, use_log
from tests.evaluation.laws.simulate import run
from tests.oracles.laws import discrete as oracle_discrete
from tests.oracles.laws import gaussian as oracle_gaussian


def law(setting: Setting, statistic: str, generation: int) -> Law | None:
    """The law of one generation."""
    return (laws(setting, statistic, generation) or [None])[-1]


GAUSSIAN = Setting("gaussian", 50, truth=4.0)
ZIPF = tuple(oracle_discrete.zipf(10))


def test_numbers_of_a_gaussian() -> None:
    assert law(GAUSSIAN, "variance", 1).expected == pytest.approx(4 * 49 / 50)  # generation 1 has seen real rows only
    found = law(GAUSSIAN, "variance", 10)
    assert found.is_exact and found.source
    assert found.expected == pytest.approx(4 * (1 - 1 / 50) ** 10)
    assert found.deviation == pytest.approx(4 * math.sqrt(oracle_gaussian.variance_variance(50, 10)))
    assert law(GAUSSIAN, "mean_variance_between", 10).expected == pytest.approx(4 - found.expected)
    assert law(GAUSSIAN, "total_variance", 10).expected == pytest.approx(4)
    assert law(GAUSSIAN, "std", 10).expected == pytest.approx(2 * gaussian.mean_std(50, 10))
    logs = law(GAUSSIAN, "log_variance", 10)
    assert logs.expected == pytest.approx(math.log(4) + 10 * gaussian.log_drift(50))
    assert logs.deviation == pytest.approx(math.sqrt(10 * gaussian.log_noise(50)))
    assert law(GAUSSIAN, "log_det", 10) == logs
    assert law(GAUSSIAN, "w2_squared", 10).expected == pytest.approx(4 * gaussian.w2_squared(50, 10))


@pytest.mark.parametrize(
    "setting",
    [
        Setting("gaussian", 8),
        Setting("gaussian", 8, estimator="unbiased", bias=0.8),
        Setting("gaussian", 8, growth=1.5),
    ],
)
def test_every_statistic_of_a_chain_holds(setting: Setting) -> None:
    found = run(setting, 5, 4000, 9)
    spread, v = found.spread[-1], found.variance[-1]
    values = {"variance": v, "log_variance": np.log(v), "mean_variance_between": spread, "total_variance": spread + v}
    if setting.growth == 1:
        values |= {"std": np.sqrt(v), "w2_squared": spread + (np.sqrt(v) - 1) ** 2}
    for statistic, sample in values.items():
        expected = law(setting, statistic, 5)
        assert abs(check(sample, expected.expected).z) <= 4, statistic
        if expected.deviation is not None:
            assert abs(check((sample - expected.expected) ** 2, expected.deviation**2).z) <= 4, statistic


def test_many_dimensions() -> None:
    setting = Setting("gaussian", 12, d=3, truth=3.0, truth_squares=1 / 3, truth_log_det=0.0)
    found = run(setting, 4, 6000, 10)
    trace = law(setting, "variance_trace", 4)
    assert abs(check(found.variance[-1], trace.expected).z) <= 4
    assert abs(check((found.variance[-1] - trace.expected) ** 2, trace.deviation**2).z) <= 4
    assert law(setting, "log_det", 4).expected == pytest.approx(4 * gaussian.log_det_drift(12, 3))
    assert law(setting, "variance", 4) is None and law(setting, "log_variance", 4) is None
    assert law(replace(setting, truth_squares=None), "variance_trace", 4).deviation is None
    assert law(replace(setting, n=3), "log_det", 4) is None  # a covariance of 3 rows in 3 dimensions has no logarithm


def test_categories() -> None:
    setting = Setting("multinomial", 20, truth=oracle_discrete.gini_simpson(np.array(ZIPF)), probabilities=ZIPF)
    found = laws(setting, "gini_simpson", 5)
    assert [x.expected for x in found] == pytest.approx([setting.truth * 0.95**k for k in range(1, 6)])
    sampled = run(setting, 5, 3000, 11)
    assert abs(check(sampled.variance[-1], found[-1].expected).z) <= 4
    support = laws(setting, "support", 3)
    assert support[0].is_exact and not support[2].is_exact
    assert support[0].expected == pytest.approx(discrete.support(np.array(ZIPF), 20))
    random, p = np.random.default_rng(1), np.broadcast_to(ZIPF, (3000, 10))
    for expected in support:
        p = random.multinomial(20, p / p.sum(axis=1, keepdims=True)) / 20
        assert (p > 0).sum(axis=1).mean() == pytest.approx(expected.expected, rel=0.06)
    assert law(replace(setting, pool="accumulate"), "support", 2) is None
    assert law(replace(setting, probabilities=()), "support", 1) is None
    assert law(replace(setting, bias=0.9), "gini_simpson", 2) is None  # a temperature is no factor on the index


@pytest.mark.parametrize(("pool", "window"), [("replace", 0), ("accumulate", 0), ("window", 2)])
def test_regression_on_one_design(pool: str, window: int) -> None:
    n, d, chains, random = 15, 3, 3000, np.random.default_rng(12)
    setting = Setting("linear_regression", n, d=d, design="same", pool=pool, window=window, truth=2.0)
    x = random.standard_normal((chains, n, d))
    labels: list[np.ndarray] = []
    theta = np.zeros((chains, d))
    for expected in laws(setting, "test_error", 5):
        noise = math.sqrt(2) * random.standard_normal((chains, n))
        labels.append(np.einsum("cni,ci->cn", x, theta) + noise)
        used = {"replace": labels[-1:], "accumulate": labels, "window": labels[-2:]}[pool]
        theta = np.linalg.solve(
            np.einsum("cni,cnj->cij", x, x), np.einsum("cni,cn->ci", x, sum(used) / len(used))[..., None]
        )[..., 0]
        assert expected.is_exact and abs(check((theta**2).sum(axis=1), expected.expected).z) <= 4


def test_regression_on_fresh_designs() -> None:
    setting = Setting("linear_regression", 111, d=10)
    once = law(setting, "test_error", 1).expected
    assert once == pytest.approx(0.1)
    assert law(setting, "test_error", 12).expected == pytest.approx(12 * once)
    gathered = laws(replace(setting, pool="accumulate"), "test_error", 2)
    assert gathered[0].is_exact and not gathered[1].is_exact
    mixed = law(replace(setting, real="fresh", real_fraction=0.1), "test_error", 200)
    assert mixed.is_exact and mixed.expected / once == pytest.approx(5.59, abs=0.01)
    for none in (
        replace(setting, pool="subsample"),
        replace(setting, real="fixed", real_fraction=0.5),
        replace(setting, real="fresh", real_fraction=0.5, bernoulli=True),
        replace(setting, real="fresh", real_fraction=0.5, design="same"),
        replace(setting, bias=0.9),
        replace(setting, n=11),
    ):
        assert law(none, "test_error", 3) is None
    assert law(setting, "variance", 3) is None


def test_where_no_law_is_known() -> None:
    for setting, statistic in (
        (GAUSSIAN, "test_error"),
        (GAUSSIAN, "gini_simpson"),
        (GAUSSIAN, "support"),
        (replace(GAUSSIAN, pool="accumulate"), "log_variance"),
        (replace(GAUSSIAN, real="fresh", real_fraction=0.5), "std"),
        (replace(GAUSSIAN, growth=1.1), "std"),
        (replace(GAUSSIAN, truth=0.0), "log_variance"),
        (replace(GAUSSIAN, bias=0.0), "log_variance"),
        (Setting("kde", 20, estimator="unbiased"), "variance"),
        (Setting("gmm", 20), "std"),
        (Setting("multinomial", 20, probabilities=(0.5, 0.5), bias=0.9), "variance"),
    ):
        assert law(setting, statistic, 3) is None
    with pytest.raises(ValueError, match="unknown statistic 'colour'"):
        law(GAUSSIAN, "colour", 1)
    with pytest.raises(ValueError, match="count from 1"):
        law(GAUSSIAN, "variance", 0)
    assert law(Setting("gmm", 20, d=2, truth=7.0), "variance_trace", 3).expected == pytest.approx(7 * 0.95**3)
    assert {"variance", "test_error", "gini_simpson"} <= set(STATISTICS)


def test_when_the_mean_is_useless() -> None:
    assert not use_log(GAUSSIAN, 15) and use_log(GAUSSIAN, 16)
    assert not use_log(replace(GAUSSIAN, pool="accumulate"), 1000)


@pytest.mark.parametrize(
    ("n", "k", "mean", "log"), [(100, 10, 89, 2004), (100, 100, 2556, 201), (1000, 693, 1200, 289)]
)
def test_chains_needed(n: int, k: int, mean: int, log: int) -> None:
    for statistic, chains in (("variance", mean), ("log_variance", log)):
        found = law(Setting("gaussian", n), statistic, k)
        assert precision.chains_for(found.expected, found.deviation, 0.05) == chains


def test_so_many_chains_give_that_precision() -> None:
    random, n, k = np.random.default_rng(2), 100, 10
    v = (random.chisquare(n - 1, (k, 4000, 89)) / n).prod(axis=0)
    assert v.mean(axis=1).std() / v.mean() == pytest.approx(0.05, rel=0.05)


def test_checks_are_never_nan() -> None:
    assert check(np.zeros(5), 0.0).z == 0 and check(np.zeros(5), 0.0).is_passed
    assert check(np.ones(5), 0.0).z == math.inf and not check(np.ones(5), 0.0).is_passed
    one = check(np.array([1.5]), 1.0, deviation=0.25)
    assert one.z == 2 and one.standard_error == 0.25 and one.num_chains == 1
    for wrong in (lambda: check(np.array([1.0]), 1.0), lambda: check(np.array([np.nan, 1]), 1.0)):
        with pytest.raises(ValueError, match="."):
            wrong()
    with pytest.raises(ValueError, match="relative error"):
        precision.chains_for(0.0, 1.0, 0.05)
