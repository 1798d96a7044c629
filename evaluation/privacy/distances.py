"""Distances of synthetic rows to real rows. They find copies and guarantee no privacy.

Data that passes distance tests can still be open to membership inference ("The DCR Delusion", Yao et al. 2025). So
these numbers always appear with attacks (evaluation/privacy/attacks.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.evaluation.distances import nearest
from gristmill.evaluation.intervals import clopper_pearson

NOT_A_GUARANTEE = "distances find copies; they are no guarantee of privacy, see the attacks"


@dataclass(frozen=True)
class Closeness:
    """`summary` is ready for JSON; the distances behind it, float32 (rows,), are for a histogram."""

    summary: dict[str, Any]
    to_train: np.ndarray
    to_holdout: np.ndarray
    holdout_to_train: np.ndarray


def closeness(train: np.ndarray, holdout: np.ndarray, synthetic: np.ndarray) -> Closeness:
    """DCR, NNDR, and the share of synthetic rows that are closer to train rows than to holdout rows.

    Arguments are float32 (rows, features) of evaluation.features. A generator without memory of rows has the expected
    share n_train / (n_train + n_holdout); a tie counts as this share. The interval assumes independent synthetic rows,
    so it is somewhat narrow.
    """
    to_train, to_holdout = (nearest(synthetic, real, 2)[0] for real in (train, holdout))
    fresh = nearest(holdout, train, 2)[0]
    expected = len(train) / (len(train) + len(holdout))
    is_tie = to_train[:, 0] == to_holdout[:, 0]
    num_closer = float((to_train[:, 0] < to_holdout[:, 0]).sum() + expected * is_tie.sum())
    low, high = clopper_pearson(round(num_closer), len(synthetic))
    summary = {
        "note": NOT_A_GUARANTEE,
        "dcr": {"train": _levels(to_train[:, 0]), "holdout": _levels(to_holdout[:, 0])},
        "nndr": {"train": _levels(nndr(to_train)), "holdout": _levels(nndr(to_holdout))},
        "fresh_real_rows": {"dcr": _levels(fresh[:, 0]), "nndr": _levels(nndr(fresh))},  # of the holdout to train
        "closer_to_train": {
            "share": num_closer / len(synthetic),
            "low": low,
            "high": high,
            "expected": expected,
        },
    }
    return Closeness(summary, to_train[:, 0], to_holdout[:, 0], fresh[:, 0])


def nndr(distances: np.ndarray) -> np.ndarray:
    """Nearest over second nearest distance, of (rows, 2); 0 for copies, also of two equal rows."""
    return np.divide(distances[:, 0], distances[:, 1], out=np.zeros(len(distances)), where=distances[:, 1] > 0)


def _levels(values: np.ndarray) -> dict[str, float]:
    low, middle = np.quantile(values, [0.05, 0.5])
    return {"q05": float(low), "median": float(middle)}


def copies(train: np.ndarray, holdout: np.ndarray, synthetic: np.ndarray) -> dict[str, Any]:
    """Number of synthetic rows that equal a train row in every column, from `features.row_numbers`.

    The share of the holdout is the reference.
    """
    num = int(np.isin(synthetic, train).sum())
    low, high = clopper_pearson(num, len(synthetic))
    by_nature = float(np.isin(holdout, train).mean())
    return {"rows": num, "share": num / len(synthetic), "low": low, "high": high, "share_of_holdout": by_nature}


def twin_share(rows: np.ndarray) -> float:
    """Share of rows with an equal row in the table: an estimate of how often a fresh row equals an existing row."""
    _, counts = np.unique(rows, return_counts=True)
    return float(counts[counts > 1].sum() / len(rows))
