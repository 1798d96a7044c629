"""Similarity of two whole tables: maximum mean discrepancy, classifier two-sample test, Frechet distance."""

import numpy as np
from scipy.linalg import eigh
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from gristmill.evaluation.draws import some, whole_number

MMD_ROWS, TEST_ROWS, NUM_FOLDS = 2000, 5000, 5


def median_distance(rows: np.ndarray) -> float:
    """The median distance between different rows of (rows, features); 1.0 when it is 0."""
    squares = _squares(rows, rows)
    median = float(np.sqrt(np.median(squares[np.triu_indices(len(rows), 1)]))) if len(rows) > 1 else 0.0
    return median or 1.0


def _squares(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = left.astype(np.float64), right.astype(np.float64)
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return np.maximum(squares, 0)


def rbf(left: np.ndarray, right: np.ndarray, bandwidth: float) -> np.ndarray:
    """exp(-|a - b|^2 / (2 bandwidth^2)), float64 (left, right)."""
    kernel: np.ndarray = np.exp(-_squares(left, right) / (2 * bandwidth**2))
    return kernel


def mmd(real: np.ndarray, synthetic: np.ndarray, seed: int = 0, most: int = MMD_ROWS) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, equation 3), which may be slightly below 0.

    The RBF kernel has the median distance of both samples together as bandwidth (their section 8). At most `most`
    random rows of each are used. Raises ValueError for fewer than two rows.
    """
    real = real[some(len(real), most, seed, "mmd real")]
    synthetic = synthetic[some(len(synthetic), most, seed, "mmd synthetic")]
    n, m = len(real), len(synthetic)
    if min(n, m) < 2:
        raise ValueError("MMD needs at least two rows of each table")
    bandwidth = median_distance(np.vstack([real, synthetic]))
    inner, outer = rbf(real, real, bandwidth), rbf(synthetic, synthetic, bandwidth)
    first = (inner.sum() - np.trace(inner)) / (n * (n - 1))
    second = (outer.sum() - np.trace(outer)) / (m * (m - 1))
    return float(first + second - 2 * rbf(real, synthetic, bandwidth).mean())


def c2st(real: np.ndarray, synthetic: np.ndarray, seed: int = 0, most: int = TEST_ROWS) -> float | None:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017): AUC of histogram gradient boosting between synthetic and
    real rows, by 5-fold cross-validation. 0.5 means indistinguishable, 1 means always separated.

    It uses equal numbers of rows, at most `most`. Matrices may hold NaN. None with fewer than NUM_FOLDS rows of each.
    """
    num = min(len(real), len(synthetic), most)
    if num < NUM_FOLDS:
        return None
    rows = np.vstack(
        [real[some(len(real), num, seed, "c2st real")], synthetic[some(len(synthetic), num, seed, "c2st synthetic")]]
    )
    is_synthetic = np.repeat([0, 1], num)
    scores = np.zeros(len(rows))
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=whole_number(seed, "c2st folds"))
    for train, test in folds.split(rows, is_synthetic):
        learner = HistGradientBoostingClassifier(random_state=whole_number(seed, "c2st"), early_stopping=False)
        scores[test] = learner.fit(rows[train], is_synthetic[train]).predict_proba(rows[test])[:, 1]
    return float(roc_auc_score(is_synthetic, scores))


def frechet(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Frechet distance of two Gaussians with the samples' means and covariances (Dowson and Landau 1982; Heusel et al.
    2017): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). Raises ValueError for fewer than two rows."""
    if min(len(real), len(synthetic)) < 2:
        raise ValueError("the Frechet distance needs at least two rows of each table")
    means = [rows.mean(0, dtype=np.float64) for rows in (real, synthetic)]
    first, second = (np.atleast_2d(np.cov(rows.astype(np.float64), rowvar=False)) for rows in (real, synthetic))
    values, vectors = eigh(first)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    # (C1 C2)^(1/2) has the trace of the symmetric (C1^(1/2) C2 C1^(1/2))^(1/2), which avoids complex numbers
    trace = np.sqrt(np.maximum(eigh(root @ second @ root, eigvals_only=True), 0)).sum()
    gap = ((means[0] - means[1]) ** 2).sum()
    return float(max(0.0, gap + np.trace(first) + np.trace(second) - 2 * trace))
