"""Linear regression, strong collapse, selection and provenance against Monte Carlo and the published numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.laws import regression as law
from gristmill.evaluation.laws import selection
from gristmill.evaluation.laws.precision import check
from tests.oracles.laws import regression as oracle_regression
from tests.oracles.laws import selection as oracle_selection

ONCE = law.one_fit(111, 10)


def fits(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares of each chain: x (chains, n, d), y (chains, n)."""
    return np.linalg.solve(np.einsum("cni,cnj->cij", x, x), np.einsum("cni,cn->ci", x, y)[..., None])[..., 0]


@pytest.mark.parametrize("is_same", [True, False])
def test_replaced(is_same: bool) -> None:
    n, d, chains, random = 30, 4, 2000, np.random.default_rng(1)
    x, theta = random.standard_normal((chains, n, d)), np.zeros((chains, d))
    for k in range(1, 6):
        x = x if is_same else random.standard_normal((chains, n, d))
        theta = fits(x, np.einsum("cni,ci->cn", x, theta) + random.standard_normal((chains, n)))
        assert abs(check((theta**2).sum(axis=1), law.replace_error(n, d, k)).z) <= 4
    assert [law.replace_error(111, 10, k) / ONCE for k in (1, 2, 5, 12)] == pytest.approx([1, 2, 5, 12])


@pytest.mark.parametrize("is_same", [True, False])
def test_accumulated(is_same: bool) -> None:
    n, d, chains, random = 14, 3, 3000, np.random.default_rng(2)
    first, theta = random.standard_normal((chains, n, d)), np.zeros((chains, d))
    x, y = np.zeros((chains, 0, d)), np.zeros((chains, 0))
    for k in range(1, 6):
        new = first if is_same else random.standard_normal((chains, n, d))
        labels = np.einsum("cni,ci->cn", new, theta) + random.standard_normal((chains, n))
        x, y = np.concatenate([x, new], axis=1), np.concatenate([y, labels], axis=1)
        theta = fits(x, y)
        estimate = check((theta**2).sum(axis=1), law.accumulate_error(n, d, k))
        assert abs(estimate.z) <= 4 if is_same else estimate.z <= 4
    assert is_same or estimate.z < -4  # a fresh design lies below
    ratios = [law.accumulate_error(111, 10, k) / ONCE for k in (1, 2, 5, 10)]
    assert ratios == pytest.approx([1, 1.25, 1.464, 1.550], abs=5e-4)
    assert law.accumulate_error(111, 10, 100_000) / ONCE == pytest.approx(oracle_regression.ACCUMULATED_LIMIT, rel=1e-4)


@pytest.mark.parametrize(("num_real", "num_synthetic", "d"), [(3, 9, 4), (10, 10, 4), (15, 5, 1), (2, 28, 6)])
def test_fresh_mix(num_real: int, num_synthetic: int, d: int) -> None:
    n, chains, random = num_real + num_synthetic, 2000, np.random.default_rng(3)
    theta = np.zeros((chains, d))
    for k in range(1, 8):
        x = random.standard_normal((chains, n, d))
        y = random.standard_normal((chains, n))
        if k > 1:
            y[:, num_real:] += np.einsum("cni,ci->cn", x[:, num_real:], theta)
        theta = fits(x, y)
        assert abs(check((theta**2).sum(axis=1), law.fresh_mix(num_real, num_synthetic, d, k)).z) <= 4


def test_fresh_mix_numbers() -> None:
    for real, limit, simulated in ((0.1, 5.26, 5.5), (0.3, 1.96, 2.05), (0.5, 1.333, 1.35)):
        assert oracle_regression.fresh_mix_limit(real, 111, 10) / ONCE == pytest.approx(limit, abs=5e-3)
        num = round(111 * real)
        exact = oracle_regression.fresh_mix_plateau(num, 111 - num, 10)
        assert exact / ONCE == pytest.approx(simulated, rel=0.03)
        assert law.fresh_mix(num, 111 - num, 10, 500) == pytest.approx(exact)
        much = oracle_regression.fresh_mix_plateau(round(real * 10**6), 10**6 - round(real * 10**6), 2)
        assert much == pytest.approx(oracle_regression.fresh_mix_limit(real, 10**6, 2), rel=1e-3)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 12))
def test_what_is_passed_on(num_synthetic: int, num_real: int, d: int) -> None:
    if num_real + num_synthetic <= d + 1:
        with pytest.raises(ValueError, match="needs more than"):
            law.passed_on(num_synthetic, num_real, d)
        return
    kept = law.passed_on(num_synthetic, num_real, d)
    share = num_synthetic / (num_synthetic + num_real)
    assert share**2 - 1e-9 <= kept  # the limit of many rows is its least value
    assert kept == 0 if num_synthetic == 0 else (kept == 1 if num_real == 0 else True)


@pytest.mark.parametrize(
    ("num_real", "num_synthetic", "gap", "limit"),
    [(1800, 200, 1.0, 0.0200), (1980, 20, 4.0, 0.0104), (200, 200, 1.0, 0.300)],
)
def test_strong_collapse(num_real: int, num_synthetic: int, gap: float, limit: float) -> None:
    d, n, chains, random = 20, num_real + num_synthetic, 150, np.random.default_rng(4)
    assert oracle_regression.strong_collapse_limit(n, num_synthetic / n, d, gap) == pytest.approx(limit, abs=6e-5)
    exact = oracle_regression.strong_collapse(num_real, num_synthetic, d, gap)
    assert exact == pytest.approx(limit, rel=0.07)
    errors = []
    for _ in range(chains):
        x, y = random.standard_normal((n, d)), random.standard_normal(n)
        y[num_real:] += x[num_real:, 0] * math.sqrt(gap)
        errors.append((np.linalg.solve(x.T @ x, x.T @ y) ** 2).sum())
    assert abs(check(np.array(errors), exact).z) <= 4


def test_strong_collapse_does_not_fall_with_more_rows() -> None:
    assert oracle_regression.strong_collapse(9 * 10**6, 10**6, 20, 1.0) == pytest.approx(0.01, rel=0.01)
    assert oracle_regression.strong_collapse_limit(10**9, 0.1, 20, 1.0, weight=0.5) == pytest.approx(0.0025, rel=1e-3)


@pytest.mark.parametrize(("right", "wrong", "share"), [(1, 1, 0.5), (0.9, 0.3, 0.75), (0.7, 0.05, 0.933)])
def test_breakdown_share(right: float, wrong: float, share: float) -> None:
    found = selection.breakdown_share(right, wrong)
    assert found == pytest.approx(share, abs=5e-4)
    assert selection.wrong_share(found, right, wrong) == pytest.approx(0.5)
    random, d, rows = np.random.default_rng(5), 20, 60_000
    for shift, is_right in ((-0.05, True), (0.05, False)):
        theta = np.eye(d)[0]
        x = random.standard_normal((rows, d))
        truth = np.sign(x @ theta)
        is_wrong = random.random(rows) < found + shift
        kept = random.random(rows) < np.where(is_wrong, wrong, right)
        labels = np.where(is_wrong, -truth, truth)
        learnt = np.linalg.lstsq(x[kept], labels[kept], rcond=None)[0]
        assert (((x @ learnt) * truth > 0).mean() > 0.5) == is_right
    with pytest.raises(ValueError, match="keep_right must be"):
        selection.breakdown_share(0.0, 0.5)
    assert selection.breakdown_share(0.5, 0.0) == 1 and selection.wrong_share(1.0, 0.5, 0.0) == 0


@pytest.mark.parametrize(
    ("real", "hit", "false", "watermark"),
    [(0.1, 0.95, 0.01, 0.068), (0.01, 0.95, 0.01, 0.00165), (0.01, 0.99, 0.001, 0.0050)],
)
def test_effective_size(real: float, hit: float, false: float, watermark: float) -> None:
    assert oracle_selection.effective_size([1], [real], "unassisted") == pytest.approx(real**2)
    assert oracle_selection.effective_size([1], [real], "oracle") == pytest.approx(real)
    assert oracle_selection.effective_size([1], [real], "watermark", hit, false) == pytest.approx(watermark, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_knowing_more_is_worth_more(batches: list, hit: float, false: float) -> None:
    sizes, real = zip(*batches)
    none, some, all_known = (
        oracle_selection.effective_size(sizes, real, known, hit, false)
        for known in ("unassisted", "watermark", "oracle")
    )
    assert none <= some * (1 + 1e-9) + 1e-12 and some <= all_known * (1 + 1e-9) + 1e-12
    blind = oracle_selection.effective_size(sizes, real, "watermark", 0.3, 0.3)
    assert blind == pytest.approx(none)
    assert oracle_selection.effective_size(sizes, real, "watermark", 1.0, 0.0) == pytest.approx(all_known)
    with pytest.raises(ValueError, match="real fraction"):
        oracle_selection.effective_size([1, 2], [0.5], "oracle")
