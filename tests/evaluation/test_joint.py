"""Whole tables against naive formulas."""

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from gristmill.evaluation.draws import some
from gristmill.evaluation.joint import c2st, frechet, median_distance, mmd
from gristmill.records.readers.datasets import DataSpec, pixels_of, read_table


def normal(num: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (num, width)).astype(np.float32)


def test_mmd_by_hand() -> None:
    # Two points each, on a line: distances 1, 2, 1, 1, 2, 1 between 0, 1 | 1, 2 and so a median of 1
    real, synthetic = np.array([[0.0], [1]]), np.array([[1.0], [2]])
    one, four, same = math.exp(-0.5), math.exp(-2.0), 1.0
    assert median_distance(np.vstack([real, synthetic])) == 1
    assert mmd(real, synthetic) == pytest.approx(one + one - 2 * (one + four + same + one) / 4)


def test_mmd_knows_a_shift_and_is_about_nothing_without() -> None:
    assert abs(mmd(normal(500, 3, 0), normal(500, 3, 1))) < 0.005
    assert mmd(normal(500, 3, 0), normal(500, 3, 1, 1.0)) > 0.1
    with pytest.raises(ValueError, match="two rows"):
        mmd(normal(1, 3, 0), normal(5, 3, 0))


def test_c2st_is_chance_or_certainty() -> None:
    assert c2st(normal(300, 3, 0), normal(300, 3, 1)) == pytest.approx(0.5, abs=0.08)
    assert c2st(normal(60, 3, 0), normal(60, 3, 1, 9.0)) == 1
    assert c2st(normal(4, 3, 0), normal(4, 3, 1)) is None


def test_frechet_by_hand_and_by_sqrtm() -> None:
    # In one dimension it is (m1 - m2)^2 + (s1 - s2)^2
    values = np.array([[-1.0], [1.0]])
    assert frechet(values, 3 * values + 5) == pytest.approx(25 + (2**0.5 - 3 * 2**0.5) ** 2)
    real, synthetic = normal(200, 4, 0), normal(200, 4, 1, 0.5) @ np.diag([1, 2, 3, 0.1])
    first, second = np.cov(real, rowvar=False), np.cov(synthetic, rowvar=False)
    gap = ((real.mean(0) - synthetic.mean(0)) ** 2).sum()
    wanted = gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(real, synthetic) == pytest.approx(wanted, rel=1e-4)
    assert frechet(real, real) == pytest.approx(0, abs=1e-6)


def test_frechet_of_digits_tells_halves_from_pixels_without_their_neighbours() -> None:
    rows = read_table(DataSpec("package:digits"))
    pixels = pixels_of(rows.column("image"), 8, 8, 1).reshape(-1, 64) / 16.0
    draws = np.random.default_rng(0)
    order = draws.permutation(len(pixels))
    halves = pixels[order[::2]], pixels[order[1::2]]
    apart = np.column_stack([draws.permutation(column) for column in halves[1].T])
    assert frechet(*halves) < 30  # 16 or so
    assert 300 < frechet(halves[0], apart) < 600


def test_rows_are_drawn_by_the_seed() -> None:
    assert (some(100, 10, 1, "a") == some(100, 10, 1, "a")).all()
    assert (some(100, 10, 1, "a") != some(100, 10, 1, "b")).any() and (np.diff(some(100, 10, 1, "a")) > 0).all()
    assert (some(5, 10, 1, "a") == np.arange(5)).all()
