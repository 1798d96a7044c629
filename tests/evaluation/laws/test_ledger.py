"""The ledger against chains of real rows, in every regime; and what must hold in all of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gristmill.evaluation.laws import gaussian
from gristmill.evaluation.laws.chain import Setting, moments
from gristmill.evaluation.laws.ledger import Draw, Ledger
from gristmill.evaluation.laws.precision import check
from tests.evaluation.laws.simulate import run
from tests.oracles.laws import fresh as oracle_fresh
from tests.oracles.laws import gaussian as oracle_gaussian
from tests.profiles import scaled

ZIPF = tuple(np.arange(1, 7.0) ** -1 / (np.arange(1, 7.0) ** -1).sum())
PLAIN = Setting("gaussian", 12)
REGIMES = {
    "replace": PLAIN,
    "replace, unbiased, biased sampling": replace(PLAIN, estimator="unbiased", bias=0.8),
    "replace, three dimensions, growing": replace(PLAIN, d=3, growth=1.2),
    "accumulate": replace(PLAIN, pool="accumulate"),
    "accumulate with fresh rows": replace(PLAIN, pool="accumulate", real="fresh", real_fraction=0.25, bias=1.1),
    "window": replace(PLAIN, pool="window", window=2),
    "window, unbiased, growing": replace(PLAIN, pool="window", window=3, estimator="unbiased", growth=0.9),
    "subsample": replace(PLAIN, pool="subsample"),
    "subsample with replacement, biased": replace(PLAIN, pool="subsample", with_replacement=True, bias=0.7),
    "subsample with fresh rows": replace(PLAIN, pool="subsample", real="fresh", real_fraction=0.5),
    "subsample beside a fixed set": replace(PLAIN, pool="subsample", real="fixed", real_fraction=0.25),
    "fresh": replace(PLAIN, real="fresh", real_fraction=0.25),
    "fresh, biased, unbiased": replace(PLAIN, real="fresh", real_fraction=0.5, bias=0.6, estimator="unbiased"),
    "fresh by coin": replace(PLAIN, real="fresh", real_fraction=0.25, bernoulli=True),
    "fresh, golden": replace(PLAIN, real="fresh", real_fraction=0.5, weights="golden", estimator="unbiased"),
    "fixed": replace(PLAIN, real="fixed", real_fraction=0.5),
    "fixed, growing": replace(PLAIN, real="fixed", real_fraction=0.25, growth=1.3, bias=0.9),
    "fixed window, golden": replace(
        PLAIN, pool="window", window=2, real="fixed", real_fraction=0.5, weights="golden", bias=0.5
    ),
    "categories": Setting("multinomial", 12, probabilities=ZIPF),
    "categories, fresh": Setting("multinomial", 12, probabilities=ZIPF, real="fresh", real_fraction=0.25),
    "categories, accumulate": Setting("multinomial", 12, probabilities=ZIPF, pool="accumulate"),
    "Bernoulli, few": Setting("gaussian", 12, real="fresh", real_fraction=0.04, bernoulli=True),
    "kernels": Setting("kde", 12, bias=1.25),
    "mixture by EM": Setting("gmm", 24),
    "mixture by EM, towards its mean": Setting("gmm", 24, bias=0.7),
    "mixture by EM, half fresh": Setting("gmm", 24, real="fresh", real_fraction=0.5),
}


@pytest.mark.parametrize("name", REGIMES)
def test_every_regime_follows_the_ledger(name: str) -> None:
    setting = REGIMES[name]
    scale = 1 - sum(p * p for p in ZIPF) if setting.family == "multinomial" else setting.d
    found = run(setting, 6, 3000, seed=sum(name.encode()))
    for k, moment in enumerate(moments(setting, 6)):
        for values, expected in ((found.variance[k], moment.variance), (found.spread[k], moment.spread)):
            assert abs(check(values, scale * expected).z) <= 4, (name, k + 1)


@pytest.mark.parametrize("name", REGIMES)
def test_a_neighbouring_regime_does_not_pass(name: str) -> None:
    """The test above can fail: another law is far from these chains."""
    setting = REGIMES[name]
    scale = 1 - sum(p * p for p in ZIPF) if setting.family == "multinomial" else setting.d
    found = run(setting, 4, 4000, seed=1)
    wrong = moments(replace(setting, n=setting.n // 2), 4)[-1]
    pairs = ((found.variance[-1], wrong.variance), (found.spread[-1], wrong.spread))
    assert max(abs(check(values, scale * expected).z) for values, expected in pairs) > 4


@st.composite
def regimes(draw: st.DrawFn) -> Setting:
    pool = draw(st.sampled_from(["replace", "accumulate", "subsample", "window"]))
    real = draw(st.sampled_from(["none", "fixed", "fresh"] if pool != "accumulate" else ["none", "fresh"]))
    return Setting(
        "gaussian",
        draw(st.integers(4, 60)),
        pool=pool,
        real=real,
        real_fraction=0.0 if real == "none" else draw(st.floats(0.1, 0.9)),
        window=draw(st.integers(1, 4)) if pool == "window" else 0,
        with_replacement=pool == "subsample" and draw(st.booleans()),
        bernoulli=real == "fresh" and pool == "replace" and draw(st.booleans()),
    )


@given(regimes(), st.integers(1, 12))
@example(Setting("gaussian", 4, real="fresh", real_fraction=0.1, bernoulli=True), 2)  # less than half a row expected
@settings(max_examples=scaled(80), deadline=None)
def test_variance_within_and_between_are_the_truth(setting: Setting, generations: int) -> None:
    found = moments(setting, generations)
    assume(found is not None)
    for moment in found or ():
        assert moment.variance + moment.spread == pytest.approx(1, abs=1e-9)
        assert 0 <= moment.variance <= 1 and moment.of_rows == pytest.approx(1)


@given(st.integers(4, 200), st.floats(0.05, 1), st.floats(0, 1), st.integers(1, 30))
@settings(max_examples=scaled(60), deadline=None)
def test_closed_forms_are_the_ledger(n: int, real: float, bias: float, k: int) -> None:
    for estimator in ("mle", "unbiased"):
        found = moments(Setting("gaussian", n, estimator=estimator, bias=bias), k)[-1]
        assert found.variance == pytest.approx(gaussian.mean_variance(n, k, estimator, bias), abs=1e-12)
        assert found.spread == pytest.approx(gaussian.mean_spread(n, k, estimator, bias))
    gathered = moments(Setting("gaussian", n, pool="accumulate"), k)[-1]
    assert gathered.variance == pytest.approx(oracle_gaussian.accumulated_variance(n, k))
    num = round(real * n)
    if num:
        mixed = moments(Setting("gaussian", n, real="fresh", real_fraction=num / n, bias=bias), k)[-1]
        assert mixed.variance == pytest.approx(oracle_fresh.variance(n, k, num / n, bias))


@given(st.integers(4, 60), st.integers(2, 10))
@settings(max_examples=scaled(40), deadline=None)
def test_more_memory_keeps_more(n: int, k: int) -> None:
    """replace <= window <= accumulate, and a subsample lies between; windows of 1 and of everything are the ends."""
    plain = Setting("gaussian", n)
    kept = [moments(replace(plain, pool="window", window=w), k)[-1].variance for w in (1, 2, k + 1)]
    gone, all_kept = (moments(replace(plain, pool=pool), k)[-1].variance for pool in ("replace", "accumulate"))
    part = moments(replace(plain, pool="subsample"), k)[-1].variance
    assert kept[0] == pytest.approx(gone) and kept[2] == pytest.approx(all_kept)
    assert gone - 1e-12 <= kept[1] <= kept[2] + 1e-12
    assert gone - 1e-12 <= part <= all_kept + 1e-12


def test_no_law_where_the_ledger_cannot_follow() -> None:
    for setting in (
        replace(PLAIN, real="fixed", real_fraction=0.5, pool="accumulate"),  # the first set would be there twice
        replace(PLAIN, real="fixed", real_fraction=0.9, growth=2.0),  # more fixed rows than there are
        replace(PLAIN, real="fresh", real_fraction=0.5, pool="subsample", weights="golden"),
        replace(PLAIN, weights="golden"),
        replace(PLAIN, real="fixed", real_fraction=0.5, bernoulli=True),
        replace(PLAIN, n=1, estimator="unbiased"),
    ):
        assert moments(setting, 3) is None


def test_draws_that_the_shards_do_not_hold_are_refused() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="no model"):
        ledger.add_synthetic("a", 3)
    ledger.add_real("a", 3)
    with pytest.raises(ValueError, match="duplicate name"):
        ledger.add_real("a", 3)
    with pytest.raises(ValueError, match="4 rows"):
        ledger.fit([Draw(("a",), 4, "without")])
    with pytest.raises(ValueError, match="2 rows"):
        ledger.fit([Draw(("a",), 2)])
    for wrong in ({"n": 0}, {"real": "fresh"}, {"real_fraction": 0.5}, {"window": 3}, {"bias": float("nan")}):
        with pytest.raises(ValueError, match="."):
            replace(PLAIN, **wrong)


def test_a_thousand_generations_are_cheap() -> None:
    assert moments(Setting("gaussian", 100), 1000)[-1].variance == pytest.approx(0.99**1000)
    kept = moments(Setting("gaussian", 100, pool="accumulate"), 300)[-1].variance
    assert kept == pytest.approx(oracle_gaussian.accumulated_variance(100, 300))


def test_with_real_rows_alone_nothing_is_forgotten_and_nothing_learnt() -> None:
    found = moments(Setting("gaussian", 10, real="fresh", real_fraction=1.0), 5)
    assert [m.variance for m in found] == pytest.approx([0.9] * 5)
