"""Membership inference: can somebody who sees the synthetic rows tell who was among the train rows?

As many members (train rows) as non-members (holdout rows) are scored; a score that knows nothing has an AUC of 0.5.
What matters for single people is the true positive rate where few are accused falsely (Carlini et al. 2022).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from gristmill.evaluation.distances import nearest
from gristmill.evaluation.draws import some, stream
from gristmill.evaluation.intervals import auc_by_chance, clopper_pearson

FALSE_RATES = (0.01, 0.1)
MAX_MEMBERS, KDE_ROWS, MAX_COMPONENTS = 5000, 2000, 8
Density = Literal["kde", "gaussian"]


@dataclass(frozen=True)
class Attack:
    """Scores, float64, higher for a likelier member; `told` for people and JSON."""

    name: str
    members: np.ndarray
    others: np.ndarray
    told: dict[str, Any]

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """(false positive rates, true positive rates), from (0, 0) to (1, 1), a point for each different score."""
        levels = np.unique(np.concatenate([self.members, self.others]))[::-1]
        rates = [1 - np.searchsorted(np.sort(s), levels, side="left") / len(s) for s in (self.others, self.members)]
        return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def judged(name: str, members: np.ndarray, others: np.ndarray) -> Attack:
    """AUC, and the true positive rate at each of FALSE_RATES with its Clopper-Pearson interval.

    The threshold is the lowest one that accuses no more than that share of non-members: with fewer than 100 of them the
    rate at 1 % is that without any false accusation.
    """
    truth = np.repeat([1, 0], [len(members), len(others)])
    low, high = auc_by_chance(len(members), len(others))
    told: dict[str, Any] = {
        "name": name,
        "auc": float(roc_auc_score(truth, np.concatenate([members, others]))),
        "auc_by_chance": [low, high],
        "members": len(members),
        "non_members": len(others),
    }
    falling = np.sort(others)[::-1]
    for rate in FALSE_RATES:
        allowed = int(np.floor(rate * len(others) + 1e-9))
        num_hits = int((members > falling[allowed]).sum()) if allowed < len(others) else len(members)
        bounds = clopper_pearson(num_hits, len(members))
        told[f"tpr_at_fpr_{rate:g}"] = {"rate": num_hits / len(members), "low": bounds[0], "high": bounds[1]}
    return Attack(name, members, others, told)


def distance_attack(members: np.ndarray, others: np.ndarray, synthetic: np.ndarray) -> Attack:
    """The nearer a row is to a synthetic one, the likelier it is a member (Chen et al. 2020, GAN-Leaks)."""
    scores = [-nearest(rows, synthetic)[0][:, 0].astype(np.float64) for rows in (members, others)]
    return judged("distance", scores[0], scores[1])


def domias(
    members: np.ndarray, others: np.ndarray, synthetic: np.ndarray, reference: np.ndarray, density: Density, seed: int
) -> Attack:
    """DOMIAS (van Breugel et al. 2023, equation 2): the density of the synthetic rows over that of the population.

    The population is known by `reference`, real rows that are neither members nor those to tell them from. Densities
    are Gaussian kernels (Scott's rule) or one Gaussian, on principal components of synthetic and reference rows.
    """
    synthetic = synthetic[some(len(synthetic), KDE_ROWS, seed, "domias synthetic")]
    reference = reference[some(len(reference), KDE_ROWS, seed, "domias reference")]
    both = np.vstack([synthetic, reference]).astype(np.float64)
    num = min(MAX_COMPONENTS, both.shape[1], min(len(synthetic), len(reference)) // 4)
    if num < 1:
        raise ValueError("DOMIAS needs at least 4 synthetic rows and 4 reference rows")
    axes = PCA(num, svd_solver="full").fit(both)
    axes_used = max(1, int((axes.explained_variance_ > 1e-9).sum()))

    def project(rows: np.ndarray) -> np.ndarray:
        made: np.ndarray = axes.transform(rows.astype(np.float64))[:, :axes_used]
        return made

    made, base = (_log_density(project(rows), density) for rows in (synthetic, reference))
    scores = [made(project(rows)) - base(project(rows)) for rows in (members, others)]
    return judged(f"DOMIAS ({density})", scores[0], scores[1])


def _log_density(rows: np.ndarray, density: Density) -> Any:
    """(rows, components) to their log densities, under what was estimated from `rows`."""
    jitter = 1e-6 * np.eye(rows.shape[1])
    if density == "gaussian":
        middle = rows.mean(0)
        covariance = np.atleast_2d(np.cov(rows, rowvar=False)) + jitter
        inverse, log_det = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
        return lambda at: -0.5 * (np.einsum("ij,jk,ik->i", at - middle, inverse, at - middle) + log_det)
    # Kernels need a covariance of full rank: a synthetic set of equal rows has none, so each kernel is widened a
    # little.
    rank = np.linalg.matrix_rank(np.atleast_2d(np.cov(rows, rowvar=False)), tol=1e-9)
    if rank < rows.shape[1]:
        rows = rows + stream(0, "kernels").normal(0, 1e-3, rows.shape)
    estimate = gaussian_kde(rows.T)
    return lambda at: np.concatenate([estimate.logpdf(part.T) for part in np.array_split(at, len(at) // 1000 + 1)])


def attack_all(train: np.ndarray, holdout: np.ndarray, synthetic: np.ndarray, seed: int) -> list[Attack]:
    """The distance attack, and DOMIAS, which spends half of the holdout as its reference.

    Each on equal numbers of members and non-members, MAX_MEMBERS at most. float32 (rows, features) of
    gristmill.evaluation.features. Raises ValueError for fewer than 8 holdout rows.
    """
    if len(holdout) < 8:
        raise ValueError("attacks need at least 8 holdout rows")
    order = stream(seed, "reference").permutation(len(holdout))
    reference, rest = holdout[np.sort(order[::2])], holdout[np.sort(order[1::2])]

    def sides(fresh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num = min(len(train), len(fresh), MAX_MEMBERS)
        return train[some(len(train), num, seed, "members")], fresh[some(len(fresh), num, seed, "non-members")]

    return [
        distance_attack(*sides(holdout), synthetic),
        domias(*sides(rest), synthetic, reference, "kde", seed),
        domias(*sides(rest), synthetic, reference, "gaussian", seed),
    ]
