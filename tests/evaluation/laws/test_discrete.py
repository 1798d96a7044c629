"""Categories against Wright-Fisher chains, and temperature without noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.evaluation.laws import discrete as law
from gristmill.evaluation.laws import tails
from gristmill.evaluation.laws.precision import check
from tests.oracles.laws import discrete as oracle_discrete
from tests.oracles.laws import tails as oracle_tails

ZIPF = oracle_discrete.zipf(50)


def drift(p: np.ndarray, n: int, k: int, chains: int, seed: int) -> np.ndarray:
    """Shares after k generations, float64 (chains, types)."""
    random, found = np.random.default_rng(seed), np.broadcast_to(p, (chains, len(p)))
    for _ in range(k):
        found = random.multinomial(n, found / found.sum(axis=1, keepdims=True)) / n
    return found


@pytest.mark.parametrize(("k", "index"), [(1, 0.8967), (10, 0.7140), (40, 0.3341)])
def test_gini_simpson(k: int, index: float) -> None:
    expected = oracle_discrete.gini_simpson(ZIPF) * (1 - 1 / 40) ** k
    assert expected == pytest.approx(index, abs=6e-5)
    found = 1 - (drift(ZIPF, 40, k, 2000, 1) ** 2).sum(axis=1)
    assert abs(check(found, expected).z) <= 4


def test_support_after_one_generation() -> None:
    assert law.support(ZIPF, 40) == pytest.approx(19.56, abs=0.005)
    found = (drift(ZIPF, 40, 1, 10_000, 2) > 0).sum(axis=1)
    assert abs(check(found, law.support(ZIPF, 40)).z) <= 4
    assert abs(check((found - law.support(ZIPF, 40)) ** 2, law.support_variance(ZIPF, 40)).z) <= 4
    gone = (drift(ZIPF, 40, 1, 10_000, 3) == 0)[:, [5, 10, 49]]
    for column, expected in zip(gone.T, law.missing(ZIPF, 40)[[5, 10, 49]]):
        assert abs(check(column, expected).z) <= 4
    assert law.missing(np.array([5e-4, 1 - 5e-4]), 1000)[0] == pytest.approx(0.606, abs=1e-3)


@pytest.mark.parametrize(("p", "expected"), [(0.5, 69.3), (0.1, 32.5)])
def test_the_end_of_two_types(p: float, expected: float) -> None:
    n, chains, random = 50, 8000, np.random.default_rng(7)
    assert oracle_discrete.absorption_time(p, n) == pytest.approx(expected, abs=0.05)
    share, when = np.full(chains, p), np.zeros(chains)
    for k in range(1, 1500):
        alive = (share > 0) & (share < 1)
        if k in (10, 100):
            low, high = oracle_discrete.not_absorbed(p, n, k - 1)
            assert low - 0.02 <= alive.mean() <= high + 0.02
        if not alive.any():
            break
        share[alive] = random.binomial(n, share[alive]) / n
        when[alive] = k
    assert when.mean() == pytest.approx(oracle_discrete.absorption_time(p, n), rel=0.06)
    assert abs(check(share, oracle_discrete.absorbing(np.array([p, 1 - p]))[0]).z) <= 4


@pytest.mark.parametrize(("k", "alive"), [(1, 0.9933), (5, 0.7899), (10, 0.5774), (40, 0.2117)])
def test_survival_of_poisson_counts(k: int, alive: float) -> None:
    assert law.survival(5, k) == pytest.approx(alive, abs=6e-5)
    random, counts = np.random.default_rng(k), np.full(20_000, 5.0)
    for _ in range(k):
        counts = random.poisson(counts).astype(float)
    assert abs(check(counts > 0, law.survival(5, k)).z) <= 4


def test_survival_of_a_share_lies_in_its_bounds() -> None:
    low, high = oracle_discrete.survival_bounds(0.001, 10_000, 10)
    assert (low, high) == pytest.approx((0.8214, 0.8321), abs=6e-5)
    found = drift(np.array([0.001, 0.999]), 10_000, 10, 20_000, 4)[:, 0] > 0
    assert low - 0.01 <= found.mean() <= high + 0.01


def test_how_long_a_token_lives() -> None:
    assert [oracle_discrete.median_life(c) for c in (1, 5, 20, 100)] == [2, 13, 56, 286]
    assert oracle_discrete.median_life(1000) == pytest.approx(2 * 1000 / np.log(2), rel=0.01)


@given(st.integers(1, 500))
def test_the_survival_factor_lies_where_the_paper_says(k: int) -> None:
    assert 1 / k <= law.survival_factor(k) <= 3 / k
    assert law.survival_factor(k + 1) < law.survival_factor(k)


def test_heat_death() -> None:
    truth = oracle_discrete.zipf(1000)
    assert oracle_discrete.entropy(truth) == pytest.approx(5.191, abs=5e-4)
    for temperature, wanted in ((0.9, (2.297, 0.751, 0.0237)), (1.1, (6.469, 6.787, 6.895))):
        for k, entropy in zip((5, 10, 20), wanted):
            path = oracle_discrete.temperature_path(truth, temperature, k)
            assert oracle_discrete.entropy(path) == pytest.approx(entropy, abs=6e-4)
            assert path == pytest.approx(oracle_discrete.heated(truth, temperature**k))  # proportional to p^(T^-k)
    for real, entropy in ((0.01, 0.142), (0.1, 1.300), (0.3, 3.584)):
        end = oracle_discrete.temperature_plateau(truth, 0.9, real)
        assert oracle_discrete.entropy(end) == pytest.approx(entropy, abs=6e-4)
        assert end == pytest.approx(real * truth + (1 - real) * oracle_discrete.heated(end, 0.9), abs=1e-10)


def test_sampled_chains_follow_the_temperature() -> None:
    """With very many rows a sampled chain at T = 0.9 with 10% real rows ends at the fixed point."""
    truth, random = oracle_discrete.zipf(20), np.random.default_rng(5)
    found = truth
    for _ in range(150):
        found = random.multinomial(10**7, 0.1 * truth + 0.9 * oracle_discrete.heated(found, 0.9)) / 10**7
    assert found == pytest.approx(oracle_discrete.temperature_plateau(truth, 0.9, 0.1), abs=2e-3)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(1, 100))
@settings(max_examples=60)
def test_bounds_of_shares(weights: list[float], n: int) -> None:
    if not sum(weights):
        with pytest.raises(ValueError, match="not all 0"):
            law.shares(weights)
        return
    p = law.shares(weights)
    assert 0 <= oracle_discrete.gini_simpson(p) < 1 and 0 <= oracle_discrete.entropy(p) <= np.log(len(p)) + 1e-9
    assert 1 - 1e-9 <= law.support(p, n) <= min(n, (p > 0).sum()) + 1e-9
    assert law.support(p, n) <= law.support(p, n + 1) + 1e-12
    assert oracle_discrete.heated(p, 1.0) == pytest.approx(p)


def test_what_is_not_a_distribution_is_refused() -> None:
    for wrong in ([-0.1, 1.1], [np.nan, 1], [], [np.inf]):
        with pytest.raises(ValueError, match="probabilities"):
            law.shares(wrong)
    with pytest.raises(ValueError, match="temperature"):
        oracle_discrete.heated(ZIPF, 0.0)
    with pytest.raises(ValueError, match="no fixed point"):
        oracle_discrete.temperature_plateau(ZIPF, 0.9, 0.001, most=3)


@pytest.mark.parametrize(("beta", "slope"), [(1.5, -1 / 3), (2.0, -0.5)])
def test_unseen_tails_fall_as_a_power(beta: float, slope: float) -> None:
    p = oracle_discrete.zipf(300_000, beta)
    few, many = (tails.unseen(p, n) for n in (1000, 4000))
    assert np.log(many / few) / np.log(4) == pytest.approx(slope, abs=0.02)
    assert -oracle_tails.exponent(beta) == pytest.approx(slope)
    rest = oracle_tails.cut_plateau(beta, len(p))  # types that are not in p at all
    assert few * (1 - rest) + rest == pytest.approx(oracle_tails.unseen_power_law(beta, 1000), rel=0.01)


def test_a_cut_tail_is_never_learnt() -> None:
    p = oracle_discrete.zipf(2_000_000, 2.0)
    assert oracle_tails.cut_plateau(2.0, 100) == pytest.approx(p[100:].sum(), rel=1e-3)
    assert oracle_tails.cut_plateau(2.0, 400) / oracle_tails.cut_plateau(2.0, 100) == pytest.approx(1 / 4, rel=0.01)


def test_plateaus_of_generators_that_saw_little() -> None:
    p, sizes = oracle_discrete.zipf(100_000, 2.0), [1000, 1000, 1000, 100_000]
    for last, expected in ((1, 0.0022), (2, 0.0214), (3, 0.0274), (4, 0.0322)):
        assert tails.unseen_after(p, sizes[4 - last :]) == pytest.approx(expected, rel=0.03)
    assert tails.unseen_after(p, [100_000]) == pytest.approx(tails.unseen(p, 100_000), rel=1e-3)
    small, random = oracle_discrete.zipf(400, 2.0), np.random.default_rng(8)
    found = np.broadcast_to(small, (3000, 400))
    for size in (300, 300, 1000):
        found = random.multinomial(size, found) / size
        found = found / found.sum(axis=1, keepdims=True)
    missing = ((found == 0) * small).sum(axis=1).mean()
    assert missing == pytest.approx(tails.unseen_after(small, [300, 300, 1000]), rel=0.02)
    for wrong in (lambda: oracle_tails.exponent(1.0), lambda: tails.unseen_after(small, [])):
        with pytest.raises(ValueError, match="."):
            wrong()
