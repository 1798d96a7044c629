"""Distances of synthetic rows to real ones. They find copies; they are no guarantee of privacy.

Data that passes tests of distance has been shown to be open to membership inference ("The DCR Delusion", Yao et al.
2025), so these numbers are shown beside an attack (evaluation/privacy/attacks.py) and never alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.evaluation.distances import nearest
from gristmill.evaluation.intervals import clopper_pearson

NOT_A_GUARANTEE = "distances find copies; they are no guarantee of privacy, see the attacks"


@dataclass(frozen=True)
class Closeness:
    """`told` for people and JSON; the distances behind it for a histogram, float32 (rows,)."""

    told: dict[str, Any]
    to_train: np.ndarray
    to_holdout: np.ndarray
    holdout_to_train: np.ndarray


def closeness(train: np.ndarray, holdout: np.ndarray, synthetic: np.ndarray) -> Closeness:
    """DCR, NNDR and the share of synthetic rows that are closer to train rows than to holdout rows.

    float32 (rows, features) of evaluation.features. A generator that learnt the population and not its rows is as often
    closest to a train row as there are train rows among the real ones: n_train / (n_train + n_holdout). A tie counts as
    just that share. The interval takes the synthetic rows for independent, so it is somewhat narrow.
    """
    to_train, to_holdout = (nearest(synthetic, real, 2)[0] for real in (train, holdout))
    fresh = nearest(holdout, train, 2)[0]
    expected = len(train) / (len(train) + len(holdout))
    is_tie = to_train[:, 0] == to_holdout[:, 0]
    num_closer = float((to_train[:, 0] < to_holdout[:, 0]).sum() + expected * is_tie.sum())
    low, high = clopper_pearson(round(num_closer), len(synthetic))
    told = {
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
    return Closeness(told, to_train[:, 0], to_holdout[:, 0], fresh[:, 0])


def nndr(distances: np.ndarray) -> np.ndarray:
    """Distance to the nearest over that to the second nearest, of (rows, 2); 0 for a copy, of two equal rows too."""
    return np.divide(distances[:, 0], distances[:, 1], out=np.zeros(len(distances)), where=distances[:, 1] > 0)


def _levels(values: np.ndarray) -> dict[str, float]:
    low, middle = np.quantile(values, [0.05, 0.5])
    return {"q05": float(low), "median": float(middle)}


def copies(train: np.ndarray, holdout: np.ndarray, synthetic: np.ndarray) -> dict[str, Any]:
    """How many rows stand, equal in every column, among the train rows; `row_numbers` of gristmill.evaluation.features.

    The holdout's share tells how many do so by nature.
    """
    num = int(np.isin(synthetic, train).sum())
    low, high = clopper_pearson(num, len(synthetic))
    by_nature = float(np.isin(holdout, train).mean())
    return {"rows": num, "share": num / len(synthetic), "low": low, "high": high, "share_of_holdout": by_nature}


def twin_share(rows: np.ndarray) -> float:
    """Share of rows with an equal one among the others: how often a fresh row would stand in the table already."""
    _, counts = np.unique(rows, return_counts=True)
    return float(counts[counts > 1].sum() / len(rows))
