"""Chains of linear classifiers that learn from their own labels, selected by a verifier (Feng et al. 2025, section 4).

x is standard normal in d dimensions, the truth a direction, and a model the mean of y x of the rows that it learns
from, of which only the direction counts: it is right on 1 - angle / pi of new x. A model at an angle from the truth
labels new x, and turns a share e of the labels over; right rows are kept with probability phi, wrong ones with psi.
"""

import math
from dataclasses import dataclass

import numpy as np

from gristmill.evaluation.laws.selection import breakdown_share, wrong_kept

SIGNAL = math.sqrt(2 / math.pi)  # E |x . u| of a unit vector u


MAX_TRIES = 50  # times that a model is asked for rows


@dataclass(frozen=True)
class Selected:
    """What is known of one generation. Accuracies are those of the model before and after."""

    share_wrong: float
    share_wrong_kept: float
    along: float  # of the mean of y x over kept rows: the part along the truth
    across: float  # and across it, in the direction in which the model errs


def selected(accuracy: float, flips: float, keep_right: float, keep_wrong: float) -> Selected:
    """Kept rows of a model that is right on `accuracy` of x and turns a share `flips` of its labels over: exact.

    The mean of y x over kept rows is ((1 - 2e)(phi + psi) g + (phi - psi) t) / (sqrt(2 pi) P(kept)), with g the model's
    direction and t the truth's. Derived here: y x is uniform over the half plane of g but for its length, and right in
    the half plane of t. With g = t its sign changes at e = 1 / (1 + psi/phi), theorem 4.2 of Feng et al.
    """
    angle = math.pi * (1 - accuracy)
    share = (1 - accuracy) * (1 - flips) + accuracy * flips
    kept = keep_right * (1 - share) + keep_wrong * share
    if not kept:
        return Selected(share, 0.0, 0.0, 0.0)
    own, pull = (1 - 2 * flips) * (keep_right + keep_wrong), keep_right - keep_wrong
    scale = 1 / (math.sqrt(2 * math.pi) * kept)
    along, across = own * math.cos(angle) + pull, own * math.sin(angle)
    return Selected(share, wrong_kept(share, keep_right, keep_wrong), along * scale, across * scale)


def series(
    n: int,
    d: int,
    generations: int,
    keep_right: float,
    keep_wrong: float,
    noise: float = 0.0,
    made_noise: float = 0.0,
    real_fraction: float = 0.0,
    is_refilled: bool = True,
) -> dict[str, np.ndarray]:
    """accuracy, share_wrong, share_wrong_kept and breakdown_share of generations 1 .. `generations`, float64 each; and
    keep_right_deviation, keep_wrong_deviation: binomial, across chains, of the keep rates as they are measured.

    Generation 1 learns from n real rows with a share `noise` of wrong labels; later ones from a fraction of fresh real
    rows and else from kept rows of the last model, as many as are missing (`is_refilled`) or as were kept of those.
    The error of a mean over N rows across the truth has length sqrt((d-1) / N): right for many dimensions, where it
    is orthogonal to all before. So the accuracy of a finite d lies near this, not exactly on it.
    """
    real, made = (n, 0) if real_fraction == 0 else (round(real_fraction * n), n - round(real_fraction * n))
    names = ("accuracy", "share_wrong", "share_wrong_kept", "keep_right_deviation", "keep_wrong_deviation")
    found: dict[str, list[float]] = {name: [] for name in names}
    along, across, num = SIGNAL * (1 - 2 * noise), 0.0, float(n)
    for _ in range(generations):
        angle = math.atan2(math.hypot(across, math.sqrt((d - 1) / num)), along)
        accuracy = 1 - angle / math.pi
        kept = selected(accuracy, made_noise, keep_right, keep_wrong)
        found["accuracy"].append(accuracy)
        found["share_wrong"].append(kept.share_wrong)
        found["share_wrong_kept"].append(kept.share_wrong_kept)
        asked = made if real_fraction else n
        rate = keep_right * (1 - kept.share_wrong) + keep_wrong * kept.share_wrong
        tries = min(MAX_TRIES, max(1, math.ceil(0.97 / rate))) if is_refilled and rate else 1  # rather one too few
        for name, keep, share in (("right", keep_right, 1 - kept.share_wrong), ("wrong", keep_wrong, kept.share_wrong)):
            seen = max(1.0, tries * asked * share)
            found[f"keep_{name}_deviation"].append(math.sqrt(keep * (1 - keep) / seen))
        num_made = float(asked) if is_refilled else asked * rate
        num_real = float(real) if real_fraction else 0.0
        num = max(1.0, num_made + num_real)
        along = (num_made * kept.along + num_real * SIGNAL * (1 - 2 * noise)) / num
        across = num_made * kept.across / num
    found["breakdown_share"] = [breakdown_share(keep_right, keep_wrong)] * generations
    return {name: np.array(values) for name, values in found.items()}


def verified(accuracy: float, verifier: float, generations: int) -> np.ndarray:
    """Accuracy of generations 1 .. for many rows, when a classifier that is right on `verifier` of x keeps the labels
    that it would give itself: float64 (generations,). `accuracy` is that of the first.

    The mean of y x over kept rows halves the angle between the model and the verifier (`selected` with phi = 1 and
    psi = 0 about the verifier's truth), so each generation halves what parts it from the verifier, and the verifier's
    own error is what is left. Derived here. The first model's error is taken as across the verifier's.
    """
    own, other = math.pi * (1 - accuracy), math.pi * (1 - verifier)
    # Directions in three dimensions: the truth, the verifier's error, the model's own error.
    model = np.array([math.cos(own), 0.0, math.sin(own)])
    judge = np.array([math.cos(other), math.sin(other), 0.0])
    found = []
    for _ in range(generations):
        found.append(1 - math.acos(np.clip(model[0], -1, 1)) / math.pi)
        model = model + judge
        model /= np.sqrt((model**2).sum()) or 1.0
    return np.array(found)
