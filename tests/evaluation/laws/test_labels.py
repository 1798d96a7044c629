"""Laws of labels that a verifier selects, by Monte Carlo and at the values of the paper."""

import math

import numpy as np
import pytest

from gristmill.evaluation.laws.labels import selection, series, verified_accuracy
from gristmill.evaluation.laws.selection import breakdown_share


@pytest.mark.parametrize(
    ("accuracy", "flips", "phi", "psi"), [(0.8, 0.1, 0.9, 0.3), (0.6, 0.0, 0.7, 0.05), (0.95, 0.45, 1.0, 1.0)]
)
def test_the_mean_over_kept_rows(accuracy: float, flips: float, phi: float, psi: float) -> None:
    random, num = np.random.default_rng(1), 400_000
    x, angle = random.standard_normal((num, 2)), math.pi * (1 - accuracy)
    y = np.sign(x @ [math.cos(angle), math.sin(angle)]) * np.where(random.random(num) < flips, -1, 1)
    right = y * x[:, 0] > 0
    kept = random.random(num) < np.where(right, phi, psi)
    mean, error = (x * y[:, None])[kept].mean(axis=0), 1 / math.sqrt(kept.sum())
    law = selection(accuracy, flips, phi, psi)
    assert abs(mean[0] - law.along) < 4 * error and abs(mean[1] - law.across) < 4 * error
    assert abs((~right).mean() - law.share_wrong) < 4 * math.sqrt(0.25 / num)
    assert abs((~right)[kept].mean() - law.share_wrong_kept) < 4 * 0.5 * error


@pytest.mark.parametrize(("phi", "psi"), [(1.0, 1.0), (0.9, 0.3), (0.7, 0.05)])
def test_breakdown_is_where_the_mean_changes_its_sign(phi: float, psi: float) -> None:
    share = breakdown_share(phi, psi)
    assert selection(1.0, share - 0.01, phi, psi).along > 0 > selection(1.0, share + 0.01, phi, psi).along
    assert abs(selection(1.0, share, phi, psi).along) < 1e-12


def test_accuracy_on_both_sides_as_published() -> None:
    """d = 50, 100,000 rows, labels that are wrong with p* -/+ .05: some .92 and .09 (theorem 4.2, by Monte Carlo)."""
    for phi, psi in ((1.0, 1.0), (0.9, 0.3), (0.7, 0.05)):
        share = breakdown_share(phi, psi)
        low, high = (
            series(100_000, 50, 2, phi, psi, made_noise=share + by, is_refilled=True)["accuracy"][1]
            for by in (-0.05, 0.05)
        )
        assert 0.88 < low < 0.94 and 0.05 < high < 0.13


def test_a_verifier_halves_what_parts_the_chain_from_it() -> None:
    accuracy = verified_accuracy(0.99, 0.8, 8)
    gaps = np.diff(accuracy)
    assert accuracy[-1] == pytest.approx(0.8, abs=0.003) and (gaps[1:] / gaps[:-1])[1:] == pytest.approx(0.5, abs=0.01)


def test_keep_rates_spread_as_binomials() -> None:
    """One generation of 2,000 rows, all right ones being 80 % of them, of which .6 are kept."""
    found = series(2000, 50, 1, 0.6, 0.1, made_noise=0.2, is_refilled=False)
    right = 2000 * (1 - found["share_wrong"][0])
    assert found["keep_right_deviation"][0] == pytest.approx(math.sqrt(0.24 / right))
    assert series(2000, 50, 1, 0.6, 0.1, made_noise=0.2)["keep_right_deviation"][0] < found["keep_right_deviation"][0]
