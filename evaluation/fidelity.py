"""Similarity of two tables by column and by pair of columns. A score of 1 means equal distributions.

Names and definitions of the scores and of the two means (column shapes, column pair trends) are those of SDMetrics. A
missing category counts as a category; missing numbers are left out.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import ks_2samp, wasserstein_distance

from gristmill.evaluation.draws import some
from gristmill.evaluation.features import numbers, texts
from gristmill.records.readers.tables import Column, TableSchema

NUM_BINS = 10  # bins of a number paired with a category, of equal width over the real range, as in SDMetrics
MAX_PAIRS = 2000
Codes = tuple[np.ndarray, np.ndarray]


def ks_complement(real: np.ndarray, synthetic: np.ndarray) -> float | None:
    """1 - the Kolmogorov-Smirnov statistic (largest distance of the distribution functions). None without values."""
    real, synthetic = real[~np.isnan(real)], synthetic[~np.isnan(synthetic)]
    if not len(real) or not len(synthetic):
        return None
    return 1.0 - float(ks_2samp(real, synthetic, method="asymp").statistic)


def tv_complement(real: np.ndarray, synthetic: np.ndarray) -> float:
    """1 - total variation distance of integer codes: half the sum of |difference of shares|."""
    num = int(max(real.max(), synthetic.max())) + 1
    shares = [np.bincount(codes, minlength=num) / len(codes) for codes in (real, synthetic)]
    return 1.0 - float(np.abs(shares[0] - shares[1]).sum()) / 2


def contingency_similarity(real: Codes, synthetic: Codes) -> float:
    """1 - total variation distance of the joint shares of two columns."""
    width = int(max(real[1].max(), synthetic[1].max())) + 1
    joint = np.concatenate([real[0] * width + real[1], synthetic[0] * width + synthetic[1]])
    codes = np.unique(joint, return_inverse=True)[1]
    return tv_complement(codes[: len(real[0])], codes[len(real[0]) :])


def correlation_similarity(real: np.ndarray, synthetic: np.ndarray) -> float | None:
    """1 - |difference of Pearson's correlations| / 2, of float64 (rows, 2). None when a column is constant."""
    left, right = (pearson(pair[:, 0], pair[:, 1]) for pair in (real, synthetic))
    if left is None or right is None:
        return None
    return 1.0 - abs(left - right) / 2


def pearson(left: np.ndarray, right: np.ndarray) -> float | None:
    """Pearson's correlation over rows without missing values; None when a column is constant there."""
    is_known = ~(np.isnan(left) | np.isnan(right))
    if is_known.sum() < 2:
        return None
    left, right = left[is_known] - left[is_known].mean(), right[is_known] - right[is_known].mean()
    scale = float(np.sqrt((left**2).sum()) * np.sqrt((right**2).sum()))
    return float((left * right).sum()) / scale if scale > 0 else None


def wasserstein(real: np.ndarray, synthetic: np.ndarray) -> float | None:
    """Wasserstein-1 distance in units of the column. None without values."""
    real, synthetic = real[~np.isnan(real)], synthetic[~np.isnan(synthetic)]
    return float(wasserstein_distance(real, synthetic)) if len(real) and len(synthetic) else None


def summary(values: np.ndarray) -> dict[str, float | None]:
    """Mean, population standard deviation, minimum, quartiles, maximum and share of missing values."""
    present = values[~np.isnan(values)]
    names = ("mean", "std", "min", "q25", "median", "q75", "max")
    missing = 1 - len(present) / len(values)
    if not len(present):
        return {**dict.fromkeys(names), "missing": missing}
    statistics = [present.mean(), present.std(), *np.quantile(present, [0, 0.25, 0.5, 0.75, 1])]
    return {**{n: float(v) for n, v in zip(names, statistics)}, "missing": missing}


def codes_of(column: Column, real: pa.Table, synthetic: pa.Table) -> Codes:
    """Values of a column in both tables as codes 0, 1, ...: categories, or bins of numbers over the real range."""
    if column.kind == "category":
        coded = pa.concat_arrays([texts(column, real), texts(column, synthetic)]).dictionary_encode()
        codes = coded.indices.to_numpy().astype(np.int64)
        return codes[: real.num_rows], codes[real.num_rows :]
    values, others = numbers(column, real), numbers(column, synthetic)
    present = values[~np.isnan(values)]
    edges = np.linspace(present.min(), present.max(), NUM_BINS + 1)[1:-1] if len(present) else np.zeros(0)
    left, right = (np.where(np.isnan(v), NUM_BINS, np.digitize(v, edges)) for v in (values, others))
    return left.astype(np.int64), right.astype(np.int64)


def columns(schema: TableSchema, real: pa.Table, synthetic: pa.Table) -> list[dict[str, Any]]:
    """One row per column with its score and statistics. Images have no row."""
    rows: list[dict[str, Any]] = []
    for column in schema.of_kind("numeric", "integer", "category"):
        row: dict[str, Any] = {"column": column.name, "kind": column.kind}
        if column.is_number:
            left, right = numbers(column, real), numbers(column, synthetic)
            row |= {"metric": "KSComplement", "score": ks_complement(left, right)}
            row |= {"wasserstein": wasserstein(left, right), "real": summary(left), "synthetic": summary(right)}
        else:
            row |= {"metric": "TVComplement", "score": tv_complement(*codes_of(column, real, synthetic))}
        rows.append(row)
    return rows


def pairs(schema: TableSchema, real: pa.Table, synthetic: pa.Table, seed: int) -> list[dict[str, Any]]:
    """One row per pair of columns with its score, for at most MAX_PAIRS random pairs."""
    every = list(combinations(schema.of_kind("numeric", "integer", "category"), 2))
    column_pairs = [every[at] for at in some(len(every), MAX_PAIRS, seed, "pairs")]
    needed = {c.name: c for pair in column_pairs for c in pair}
    values = {n: (numbers(c, real), numbers(c, synthetic)) for n, c in needed.items() if c.is_number}
    is_mixed = {c.name for pair in column_pairs if not all(c.is_number for c in pair) for c in pair}
    codes = {n: codes_of(needed[n], real, synthetic) for n in is_mixed}
    rows = []
    for left, right in column_pairs:
        row: dict[str, Any] = {"columns": [left.name, right.name]}
        if left.is_number and right.is_number:
            both = [np.column_stack([values[left.name][side], values[right.name][side]]) for side in (0, 1)]
            row |= {"metric": "CorrelationSimilarity", "score": correlation_similarity(both[0], both[1])}
        else:
            both_codes = [(codes[left.name][side], codes[right.name][side]) for side in (0, 1)]
            row |= {"metric": "ContingencySimilarity", "score": contingency_similarity(both_codes[0], both_codes[1])}
        rows.append(row)
    return rows


def mean_score(rows: list[dict[str, Any]]) -> float | None:
    """Mean of the scores that are not None: column shapes, or column pair trends."""
    scores = [row["score"] for row in rows if row["score"] is not None]
    return float(np.mean(scores)) if scores else None


def association(schema: TableSchema, table: pa.Table) -> tuple[list[str], np.ndarray]:
    """(names, float64 (columns, columns)): Pearson's correlation of two numbers, correlation ratio of a number and a
    category (Fisher 1925), Cramer's V of two categories (Cramer 1946); 0 where a column is constant."""
    columns = schema.of_kind("numeric", "integer", "category")
    values = [numbers(c, table) if c.is_number else codes_of(c, table, table)[0] for c in columns]
    matrix = np.eye(len(columns))
    for i, j in combinations(range(len(columns)), 2):
        if columns[i].is_number and columns[j].is_number:
            strength = pearson(values[i], values[j]) or 0.0
        elif columns[i].is_number or columns[j].is_number:
            number, category = (i, j) if columns[i].is_number else (j, i)
            strength = correlation_ratio(values[number], values[category])
        else:
            strength = cramers_v(values[i], values[j])
        matrix[i, j] = matrix[j, i] = strength
    return [c.name for c in columns], matrix


def correlation_ratio(values: np.ndarray, codes: np.ndarray) -> float:
    """Square root of the share of a number's variance between the categories."""
    is_known = ~np.isnan(values)
    values, codes = values[is_known], codes[is_known]
    if not len(values) or values.var() == 0:
        return 0.0
    counts = np.bincount(codes)
    sums = np.bincount(codes, values - values.mean())
    between = float((sums**2 / np.maximum(counts, 1)).sum())
    return float(np.sqrt(min(1.0, between / (values.var() * len(values)))))


def cramers_v(left: np.ndarray, right: np.ndarray) -> float:
    """sqrt(chi^2 / n / (smaller number of categories - 1))."""
    left, right = (np.unique(codes, return_inverse=True)[1] for codes in (left, right))
    num_left, num_right = int(left.max()) + 1, int(right.max()) + 1
    if min(num_left, num_right) < 2:
        return 0.0
    cells, counts = np.unique(left * num_right + right, return_counts=True)
    expected = np.bincount(left)[cells // num_right] * np.bincount(right)[cells % num_right] / len(left)
    # sum (o - e)^2 / e = sum o^2 / e - n, so empty cells are not needed
    chi2 = float((counts**2 / expected).sum()) - len(left)
    return float(np.sqrt(max(0.0, chi2) / len(left) / (min(num_left, num_right) - 1)))
