"""Membership inference: attacks that guess from the synthetic rows which rows were train rows.

An attack scores equally many members (train rows) and non-members (holdout rows). A random score has an AUC of 0.5. For
single people, the true positive rate at a low false positive rate matters (Carlini et al. 2022).
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
    """Scores, float64, higher for likelier members; `summary` is ready for JSON."""

    name: str
    members: np.ndarray
    others: np.ndarray
    summary: dict[str, Any]

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """(false positive rates, true positive rates), from (0, 0) to (1, 1), a point for each different score."""
        levels = np.unique(np.concatenate([self.members, self.others]))[::-1]
        rates = [1 - np.searchsorted(np.sort(s), levels, side="left") / len(s) for s in (self.others, self.members)]
        return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def attack_of(name: str, members: np.ndarray, others: np.ndarray) -> Attack:
    """An attack from its scores: AUC, and true positive rates at FALSE_RATES with their Clopper-Pearson intervals.

    The threshold is the lowest that accuses at most that share of non-members. With fewer than 100 non-members, the
    rate at 1 % is the rate without any false accusation.
    """
    truth = np.repeat([1, 0], [len(members), len(others)])
    low, high = auc_by_chance(len(members), len(others))
    summary: dict[str, Any] = {
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
        summary[f"tpr_at_fpr_{rate:g}"] = {"rate": num_hits / len(members), "low": bounds[0], "high": bounds[1]}
    return Attack(name, members, others, summary)


def distance_attack(members: np.ndarray, others: np.ndarray, synthetic: np.ndarray) -> Attack:
    """Distance attack: rows near a synthetic row are likelier members (Chen et al. 2020, GAN-Leaks)."""
    scores = [-nearest(rows, synthetic)[0][:, 0].astype(np.float64) for rows in (members, others)]
    return attack_of("distance", scores[0], scores[1])


def domias(
    members: np.ndarray, others: np.ndarray, synthetic: np.ndarray, reference: np.ndarray, density: Density, seed: int
) -> Attack:
    """DOMIAS (van Breugel et al. 2023, equation 2): the density of the synthetic rows over that of the population.

    `reference` holds real rows of the population that are neither members nor scored non-members. Densities are
    Gaussian kernels (Scott's rule) or one Gaussian, on principal components of synthetic and reference rows.
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
        components: np.ndarray = axes.transform(rows.astype(np.float64))[:, :axes_used]
        return components

    synthetic_density, reference_density = (_log_density(project(rows), density) for rows in (synthetic, reference))
    scores = [synthetic_density(project(rows)) - reference_density(project(rows)) for rows in (members, others)]
    return attack_of(f"DOMIAS ({density})", scores[0], scores[1])


def _log_density(rows: np.ndarray, density: Density) -> Any:
    """A function from (rows, components) to log-densities, estimated from `rows`."""
    jitter = 1e-6 * np.eye(rows.shape[1])
    if density == "gaussian":
        middle = rows.mean(0)
        covariance = np.atleast_2d(np.cov(rows, rowvar=False)) + jitter
        inverse, log_det = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
        return lambda at: -0.5 * (np.einsum("ij,jk,ik->i", at - middle, inverse, at - middle) + log_det)
    # Kernels need a covariance of full rank. Noise gives it to equal rows.
    rank = np.linalg.matrix_rank(np.atleast_2d(np.cov(rows, rowvar=False)), tol=1e-9)
    if rank < rows.shape[1]:
        rows = rows + stream(0, "kernels").normal(0, 1e-3, rows.shape)
    estimate = gaussian_kde(rows.T)
    return lambda at: np.concatenate([estimate.logpdf(part.T) for part in np.array_split(at, len(at) // 1000 + 1)])


def attack_all(train: np.ndarray, holdout: np.ndarray, synthetic: np.ndarray, seed: int) -> list[Attack]:
    """The distance attack, and DOMIAS with half of the holdout as its reference.

    Each uses equal numbers of members and non-members, at most MAX_MEMBERS. float32 (rows, features) of
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
