"""Blocked distances against scipy's, and copies at exactly 0."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gristmill.evaluation import distances
from gristmill.evaluation.distances import blocks, nearest, rounding


def points(num: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((num, width), np.float32)


@given(st.integers(1, 40), st.integers(6, 60), st.integers(1, 8), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=40)
def test_nearest_is_what_scipy_finds_whatever_the_blocks(num: int, others: int, width: int, k: int, seed: int) -> None:
    rows, there = points(num, width, seed), points(others, width, seed + 1)
    wanted = np.sort(cdist(rows, there), axis=1)[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "ROWS", 7)
        patch.setattr(distances, "OTHERS", 5)
        found, places = nearest(rows, there, k)
    assert np.allclose(found, wanted, atol=1e-5)
    assert np.allclose(np.take_along_axis(cdist(rows, there), places, 1), found, atol=1e-5)
    assert (found == nearest(rows, there, k)[0]).all()


def test_a_row_is_not_its_own_neighbour_but_its_twin_is() -> None:
    rows = points(50, 4, 0)
    rows[49] = rows[0]
    found, places = nearest(rows, rows, 2, is_self=True)
    assert found[0, 0] == 0 and places[0, 0] == 49 and places[49, 0] == 0
    off_diagonal = cdist(rows, rows) + np.diag(np.full(50, np.inf))
    assert np.allclose(found, np.sort(off_diagonal, axis=1)[:, :2], atol=1e-5)


def test_copies_are_at_exactly_nothing_far_from_the_origin() -> None:
    there = points(9000, 20, 1) + 1000  # single precision alone would lose them here
    assert (nearest(there[-300:], there)[0] == 0).all()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 neighbours requested of 2 rows"):
        nearest(points(2, 2, 0), points(2, 2, 1), 3)
    with pytest.raises(ValueError, match="2 neighbours"):
        nearest(points(2, 2, 0), points(2, 2, 0), 2, is_self=True)


def test_blocks_hold_every_distance_once() -> None:
    rows, there = points(700, 5, 2), points(90, 5, 3)
    made = np.concatenate([squares for _, squares in blocks(rows, there)])
    assert np.abs(made - cdist(rows, there) ** 2).max() <= rounding(rows, there)
