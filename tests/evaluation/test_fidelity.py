"""Columns and pairs against values worked out by hand, or by scipy."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats.contingency import association as scipy_association

from gristmill.evaluation import fidelity
from gristmill.records.readers.tables import Column, TableSchema

NAN = float("nan")


def test_ks_complement_by_hand() -> None:
    real, synthetic = np.array([1.0, 2, 3, 4, NAN]), np.array([3.0, 4, 5, 6])
    assert fidelity.ks_complement(real, synthetic) == 0.5  # at 2: half of the real values, none of the others
    assert fidelity.ks_complement(real, real) == 1
    assert fidelity.ks_complement(real, np.array([NAN])) is None


def test_tv_complement_by_hand() -> None:
    assert fidelity.tv_complement(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])) == 0.75
    assert fidelity.tv_complement(np.array([0, 0]), np.array([1, 2])) == 0


def test_contingency_similarity_by_hand() -> None:
    real = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    crossed = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])  # the same marginals, and independent
    assert fidelity.contingency_similarity(real, crossed) == 0.5
    assert fidelity.contingency_similarity(real, real) == 1


def test_correlation_similarity_by_hand() -> None:
    up = np.column_stack([np.arange(4.0), 2 * np.arange(4.0)])
    down = up * [1, -1]
    assert fidelity.correlation_similarity(up, down) == pytest.approx(0)
    assert fidelity.correlation_similarity(up, up) == pytest.approx(1)
    flat = np.column_stack([np.arange(4.0), np.ones(4)])
    assert fidelity.correlation_similarity(up, flat) is None
    values = np.random.default_rng(0).normal(size=(50, 2))
    assert fidelity.pearson(values[:, 0], values[:, 1]) == pytest.approx(np.corrcoef(values.T)[0, 1])


def test_wasserstein_is_the_shift() -> None:
    values = np.array([0.0, 1, 5, 9])
    assert fidelity.wasserstein(values, values + 3) == pytest.approx(3)


def test_summary_by_hand() -> None:
    found = fidelity.summary(np.array([1.0, 2, 3, 4, NAN]))
    assert found == {
        **{"mean": 2.5, "std": pytest.approx(1.25**0.5), "min": 1, "q25": 1.75, "median": 2.5, "q75": 3.25, "max": 4},
        "missing": pytest.approx(0.2),
    }


def test_associations_are_what_scipy_says() -> None:
    draws = np.random.default_rng(1)
    left, right = draws.integers(0, 3, 200), draws.integers(0, 4, 200)
    right = np.where(draws.random(200) < 0.5, left, right)
    counts = np.zeros((3, 4), int)
    np.add.at(counts, (left, right), 1)
    assert fidelity.cramers_v(left, right) == pytest.approx(scipy_association(counts, method="cramer"))
    assert fidelity.cramers_v(left, np.zeros(200, int)) == 0
    # Three groups with means 1, 5 and 9, each with a spread of 1: eta^2 = between / all = 32/3 / (32/3 + 1)
    values = np.array([0.0, 2, 4, 6, 8, 10])
    assert fidelity.correlation_ratio(values, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx((32 / 35) ** 0.5)
    assert fidelity.correlation_ratio(np.ones(4), np.array([0, 0, 1, 1])) == 0


SCHEMA = TableSchema(
    (Column("x", "numeric", nullable=True), Column("y", "integer"), Column("c", "category", categories=("a", "b")))
)


def test_tables_of_every_kind_and_themselves() -> None:
    rows = pa.table({"x": [0.0, None, 1.0, 2.0], "y": [1, 2, 3, 4], "c": ["a", "a", "b", "b"]})
    columns, pairs = fidelity.columns(SCHEMA, rows, rows), fidelity.pairs(SCHEMA, rows, rows, 0)
    assert [c["metric"] for c in columns] == ["KSComplement", "KSComplement", "TVComplement"]
    assert [p["metric"] for p in pairs] == ["CorrelationSimilarity", "ContingencySimilarity", "ContingencySimilarity"]
    assert fidelity.mean_score(columns) == fidelity.mean_score(pairs) == pytest.approx(1)
    names, made = fidelity.association(SCHEMA, rows)
    assert names == ["x", "y", "c"] and (made == made.T).all() and (np.diag(made) == 1).all()
    assert made[0, 1] == pytest.approx(fidelity.pearson(np.array([0.0, NAN, 1, 2]), np.array([1.0, 2, 3, 4])))


def test_a_pair_with_a_number_is_binned_over_the_real_range() -> None:
    real = pa.table({"x": [0.0, 10.0], "y": [0, 0], "c": ["a", "b"]})
    beyond = pa.table({"x": [-5.0, 99.0], "y": [0, 0], "c": ["a", "b"]})
    score = next(p["score"] for p in fidelity.pairs(SCHEMA, real, beyond, 0) if p["columns"] == ["x", "c"])
    assert score == 1  # both fall into the outer bins
