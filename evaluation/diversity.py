"""Diversity of synthetic rows: precision and recall of manifolds, Vendi score, coverage of columns."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.evaluation.distances import blocks, nearest, rounding
from gristmill.evaluation.draws import some
from gristmill.evaluation.features import numbers, texts
from gristmill.evaluation.joint import rbf
from gristmill.records.readers.tables import TableSchema

NEIGHBOURS = 5
PRDC_ROWS, VENDI_ROWS = 5000, 1000


def prdc(real: np.ndarray, synthetic: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float] | None:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), equations 1 to 6.

    The ball of a row reaches to its k-th neighbour on its own side. precision: share of synthetic rows in a real ball;
    recall: share of real rows in a synthetic ball; density: mean number of real balls around a synthetic row, over k
    (may exceed 1); coverage: share of real balls with a synthetic row. The border counts as inside, so that copies of
    repeated rows count. float32 (rows, features); None with k rows or fewer.
    """
    if min(len(real), len(synthetic)) <= k:
        return None
    slack = rounding(real, synthetic)
    radius, synthetic_radius = (nearest(r, r, k, is_self=True)[0][:, -1] ** 2 + slack for r in (real, synthetic))
    num_inside, num_recalled, num_covered, num_precise = 0, 0, 0, 0
    for part, squares in blocks(real, synthetic):
        is_inside = squares <= radius[part, None]
        num_inside += int(is_inside.sum())
        num_covered += int(is_inside.any(axis=1).sum())
        num_recalled += int((squares <= synthetic_radius).any(axis=1).sum())
    for _, squares in blocks(synthetic, real):
        num_precise += int((squares <= radius).any(axis=1).sum())
    return {
        "precision": num_precise / len(synthetic),
        "recall": num_recalled / len(real),
        "density": num_inside / (k * len(synthetic)),
        "coverage": num_covered / len(real),
    }


def vendi(rows: np.ndarray, bandwidth: float, seed: int = 0, most: int = VENDI_ROWS) -> float:
    """Vendi score (Friedman and Dieng 2023, definition 3.1): the exponential of the entropy of the eigenvalues of K /
    n.

    It ranges from 1 (equal rows) to n (unlike rows). K is the RBF kernel of `bandwidth`: use the median distance of the
    real rows for all tables. At most `most` rows are used. Scores of different numbers of rows are not comparable.
    """
    rows = rows[some(len(rows), most, seed, "vendi")]
    values = np.linalg.eigvalsh(rbf(rows, rows, bandwidth) / len(rows))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def duplicate_share(row_numbers: np.ndarray) -> float:
    """Share of rows that repeat an earlier row; `row_numbers` are those of gristmill.evaluation.features."""
    return 1 - len(np.unique(row_numbers)) / len(row_numbers)


def coverage(schema: TableSchema, real: pa.Table, synthetic: pa.Table) -> list[dict[str, Any]]:
    """For each column the share of the real categories (CategoryCoverage) or of the real range (RangeCoverage) that
    occurs, as SDMetrics defines them, and the share of values that the schema does not allow."""
    rows: list[dict[str, Any]] = []
    for column in schema.of_kind("numeric", "integer", "category"):
        row: dict[str, Any] = {"column": column.name}
        if column.is_number:
            values, others = numbers(column, real), numbers(column, synthetic)
            low = -np.inf if column.low is None else column.low
            high = np.inf if column.high is None else column.high
            row |= {"metric": "RangeCoverage", "score": range_coverage(values, others)}
            row["outside"] = float(((others < low) | (others > high)).mean())
        else:
            real_values, values_here = (set(texts(column, table).unique().to_pylist()) for table in (real, synthetic))
            row |= {"metric": "CategoryCoverage", "score": len(real_values & values_here) / len(real_values)}
            listed = pc.is_in(synthetic.column(column.name).drop_null(), pa.array(column.categories, pa.string()))
            row["outside"] = (len(listed) - (pc.sum(listed).as_py() or 0)) / synthetic.num_rows
        if not column.nullable:
            row["outside"] += synthetic.column(column.name).null_count / synthetic.num_rows
        rows.append(row)
    return rows


def range_coverage(real: np.ndarray, synthetic: np.ndarray) -> float | None:
    """1 - the shares of the real range that are missed below and above, at least 0. None without values or range."""
    real, synthetic = real[~np.isnan(real)], synthetic[~np.isnan(synthetic)]
    if not len(real) or not len(synthetic) or real.min() == real.max():
        return None
    span = real.max() - real.min()
    missed = max((synthetic.min() - real.min()) / span, 0) + max((real.max() - synthetic.max()) / span, 0)
    return float(max(0.0, 1 - missed))
