"""Metrics of a generation against scipy, against hand counts and against what they must do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, wasserstein_distance

from gristmill.evaluation.collapse import measures as collapse
from gristmill.evaluation.collapse.measures import Holdout
from gristmill.evaluation.joint import frechet


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


REAL = rows(0, 1500, 3) * [1, 2, 3]
HOLDOUT = Holdout.of(REAL)


def test_covariances_of_many_chains() -> None:
    found = rows(1, 4, 20, 3)
    for one, covariance, trace, log in zip(
        found, collapse.covariances(found), collapse.covariance_trace(found), collapse.log_det(found)
    ):
        expected = np.cov(one, rowvar=False, bias=True)
        assert covariance == pytest.approx(expected)
        assert trace == pytest.approx(np.trace(expected))
        assert log == pytest.approx(np.log(np.linalg.det(expected)))
    assert (collapse.log_det(found[:, :3]) == -np.inf).all()  # three rows in three dimensions
    assert (collapse.log_det(np.ones((2, 9, 3))) == -np.inf).all()


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 3), st.integers(0, 30))
@settings(max_examples=80, deadline=None)
def test_wasserstein_is_scipys(n: int, m: int, d: int, seed: int) -> None:
    left, right = rows(seed, 2, n, d), rows(seed + 100, m, d).round(1)
    found = collapse.wasserstein(left, right)
    for chain in range(2):
        for column in range(d):
            expected = wasserstein_distance(left[chain, :, column], right[:, column])
            assert found[chain, column] == pytest.approx(expected, abs=1e-12)
    second = collapse.wasserstein(left, right, 2)
    assert (second >= found - 1e-12).all()  # by Jensen
    twins = np.repeat(left, 3, axis=1)  # the same distribution in more rows
    assert collapse.wasserstein(twins, right, 2) == pytest.approx(second)


def test_second_order_of_gaussians() -> None:
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    found = collapse.wasserstein((2 + 3 * quantiles)[None, :, None], quantiles[:, None], 2)[0, 0]
    assert found == pytest.approx(math.sqrt(2**2 + 2**2), rel=1e-3)


def test_sliced_wasserstein_sees_what_columns_hide() -> None:
    base = rows(2, 4000, 2)
    tied = np.stack([base[:, 0], base[:, 0]], axis=1)  # the same columns, fully correlated
    apart = collapse.sliced_wasserstein(np.stack([rows(3, 4000, 2), tied]), base)
    assert collapse.wasserstein(tied[None], base).max() < 0.05
    assert apart[0] < 0.06 and apart[1] > 0.2
    shifted = collapse.sliced_wasserstein((base + [3.0, 0.0])[None], base, num_slices=400)
    assert shifted[0] == pytest.approx(3 / math.sqrt(2), rel=0.05)  # the mean of cos^2 is 1/2
    alone = collapse.sliced_wasserstein(tied[None], base)
    assert alone == pytest.approx(apart[1])  # the seed fixes the directions
    assert alone == collapse.sliced_wasserstein(tied[None], base)


def test_tails_and_variance_shrink_together() -> None:
    found = collapse.of_chains(np.stack([REAL[:700], 0.5 * REAL[:700], 0 * REAL[:700]]), HOLDOUT)
    assert found["tail"][0] == pytest.approx(1, abs=0.3)
    assert found["tail"][1] == 0 and found["tail"][2] == 0
    assert found["variance"] == pytest.approx([1, 0.25, 0], abs=0.05)
    assert found["wasserstein"][0] < found["wasserstein"][1] < found["wasserstein"][2]
    assert found["log_det"][2] == -np.inf
    wide = Holdout.of(REAL, tail=0.2)
    assert wide.in_tails == pytest.approx(0.4, abs=0.01)
    assert collapse.tail_mass(REAL[None], wide.low, wide.high)[0] == wide.in_tails


def test_one_chain_in_full() -> None:
    good = collapse.of_rows(rows(4, 900, 3) * [1, 2, 3], HOLDOUT, size=800)
    poor = collapse.of_rows(0.2 * REAL, HOLDOUT, size=800)
    assert good["recall"] > 0.9 and poor["recall"] < 0.15  # recall moves first, precision hardly
    assert good["precision"] > 0.9 and poor["precision"] > 0.9
    assert good["frechet"] < 0.1 < poor["frechet"] and good["mmd"] < 0.005 < poor["mmd"]
    assert poor["vendi"] < 0.5 * good["vendi"]
    assert good["sliced_wasserstein"] < poor["sliced_wasserstein"]
    assert good == collapse.of_rows(rows(4, 900, 3) * [1, 2, 3], HOLDOUT, size=800)
    assert good["frechet"] == pytest.approx(frechet(REAL, rows(4, 900, 3) * [1, 2, 3]), abs=0.1)
    assert all(value is None or math.isfinite(value) for value in (*good.values(), *poor.values()))


def test_a_collapsed_chain_is_a_result() -> None:
    found = collapse.of_rows(np.ones((50, 3)), HOLDOUT)
    assert found["variance"] == 0 and found["log_det"] is None and found["vendi"] == pytest.approx(1)
    one = collapse.of_rows(np.ones((1, 3)), HOLDOUT)
    assert one["mmd"] is None and one["frechet"] is None and one["recall"] is None
    with pytest.raises(ValueError, match="degenerate"):
        collapse.of_chains(np.full((1, 5, 3), np.nan), HOLDOUT)


def test_a_bad_holdout_is_refused() -> None:
    for wrong in (np.ones((1, 2)), np.array([[np.nan], [1.0]]), np.ones(5)):
        with pytest.raises(ValueError, match="holdout"):
            Holdout.of(wrong)
    with pytest.raises(ValueError, match="tail"):
        Holdout.of(REAL, tail=0.5)
