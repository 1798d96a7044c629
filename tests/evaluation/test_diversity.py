"""Precision, recall, density, coverage against their definitions; Vendi and coverage by hand."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gristmill.evaluation import diversity
from gristmill.records.readers.tables import Column, TableSchema
from tests.profiles import scaled


def naive(real: np.ndarray, synthetic: np.ndarray, k: int) -> dict[str, float]:
    """Naeem et al. 2020, written down as it stands."""
    radius = [sorted(row)[k] for row in cdist(real, real)]
    own = [sorted(row)[k] for row in cdist(synthetic, synthetic)]
    apart = cdist(real, synthetic)
    return {
        "precision": np.mean([any(apart[i, j] <= radius[i] for i in range(len(real))) for j in range(len(synthetic))]),
        "recall": np.mean([any(apart[i, j] <= own[j] for j in range(len(synthetic))) for i in range(len(real))]),
        "density": sum(apart[i, j] <= radius[i] for i in range(len(real)) for j in range(len(synthetic)))
        / (k * len(synthetic)),
        "coverage": np.mean([any(apart[i, j] <= radius[i] for j in range(len(synthetic))) for i in range(len(real))]),
    }


@given(st.integers(6, 40), st.integers(6, 40), st.floats(0, 2), st.integers(0, 20))
@settings(max_examples=scaled(30))
def test_prdc_is_its_definition(num: int, others: int, shift: float, seed: int) -> None:
    draws = np.random.default_rng(seed)
    real, synthetic = draws.normal(size=(num, 3)), draws.normal(shift, 1, (others, 3))
    found = diversity.prdc(real.astype(np.float32), synthetic.astype(np.float32))
    assert found == pytest.approx(naive(real, synthetic, 5))


def test_prdc_of_copies_of_noise_and_of_few() -> None:
    real = np.random.default_rng(0).integers(0, 2, (200, 6)).astype(np.float32)  # rows that stand there many times
    same = diversity.prdc(real, real)
    assert same and same["precision"] == same["recall"] == same["coverage"] == 1
    far = diversity.prdc(real, real + 9)
    assert far == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    assert diversity.prdc(real[:5], real) is None


def test_vendi_counts_different_rows() -> None:
    assert diversity.vendi(np.ones((7, 2)), 1.0) == pytest.approx(1)
    assert diversity.vendi(100 * np.eye(5), 1.0) == pytest.approx(5)
    two = np.array([[0.0], [1.0]])
    kernel = math.exp(-0.5)
    shares = np.array([1 + kernel, 1 - kernel]) / 2
    assert diversity.vendi(two, 1.0) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_duplicates_by_hand() -> None:
    assert diversity.duplicate_share(np.array([1, 2, 2, 2])) == 0.5


def test_coverage_by_hand() -> None:
    schema = TableSchema((Column("x", "numeric", 0, 10), Column("c", "category", categories=("a", "b", "c"))))
    real = pa.table({"x": [0.0, 5.0, 10.0, 10.0], "c": ["a", "b", "c", "a"]})
    made = pa.table({"x": [2.0, 4.0, 9.0, 12.0], "c": ["a", "b", "d", None]})
    numbers, categories = diversity.coverage(schema, real, made)
    assert numbers == {"column": "x", "metric": "RangeCoverage", "score": 0.8, "outside": 0.25}
    assert categories["score"] == pytest.approx(2 / 3)
    assert categories["outside"] == 0.5  # one category that is not listed, one missing value
    assert diversity.range_coverage(np.array([0.0, 10]), np.array([20.0, 30])) == 0
