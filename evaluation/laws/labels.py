"""Chains of linear classifiers that learn from labels of their predecessors, selected by a verifier.

The setting is that of Feng et al. (2025, section 4). x is standard normal in d dimensions, the truth is a direction,
and a model is the mean of y x of its training rows. Only its direction counts: it labels 1 - angle / pi of new x right.
A model labels new x and flips a share e of the labels. Right rows are kept with probability phi, wrong rows with psi.
"""

import math
from dataclasses import dataclass

import numpy as np

from gristmill.evaluation.laws.selection import breakdown_share, wrong_share

SIGNAL = math.sqrt(2 / math.pi)  # E |x . u| of a unit vector u
MAX_TRIES = 50  # samples of a model under shortfall = "resample"


@dataclass(frozen=True)
class Selection:
    """Expectations for the kept rows of one generation."""

    share_wrong: float
    share_wrong_kept: float
    along: float  # mean of y x over kept rows: component along the truth
    across: float  # component in the direction of the model's error


def selection(accuracy: float, flips: float, keep_right: float, keep_wrong: float) -> Selection:
    """The kept rows of a model that labels `accuracy` of x right and flips a share `flips` of its labels; exact.

    The mean of y x over kept rows is ((1 - 2e)(phi + psi) g + (phi - psi) t) / (sqrt(2 pi) P(kept)), with g the model's
    direction and t the truth's. Derived here: the direction of y x is uniform over the half plane of g, and the label
    is right in the half plane of t. With g = t the sign changes at e = 1 / (1 + psi/phi), theorem 4.2 of Feng et al.
    """
    angle = math.pi * (1 - accuracy)
    share = (1 - accuracy) * (1 - flips) + accuracy * flips
    keep_rate = keep_right * (1 - share) + keep_wrong * share
    if not keep_rate:
        return Selection(share, 0.0, 0.0, 0.0)
    by_model, by_truth = (1 - 2 * flips) * (keep_right + keep_wrong), keep_right - keep_wrong
    scale = 1 / (math.sqrt(2 * math.pi) * keep_rate)
    along, across = by_model * math.cos(angle) + by_truth, by_model * math.sin(angle)
    return Selection(share, wrong_share(share, keep_right, keep_wrong), along * scale, across * scale)


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
    keep_right_deviation and keep_wrong_deviation, the binomial deviations across chains of the measured keep rates.

    Generation 1 learns from n real rows with a share `noise` of wrong labels. Later generations learn from a fraction
    of fresh real rows and from kept rows of the last model: with `is_refilled` as many as are missing, else those kept
    of one sample. The error of a mean over N rows has the length sqrt((d-1) / N) across the truth. This is right for
    many dimensions, where it is orthogonal to earlier errors; for small d the accuracy is only near this law.
    """
    num_fresh = round(real_fraction * n)
    num_from_model = n - num_fresh
    names = ("accuracy", "share_wrong", "share_wrong_kept", "keep_right_deviation", "keep_wrong_deviation")
    values: dict[str, list[float]] = {name: [] for name in names}
    along, across, num = SIGNAL * (1 - 2 * noise), 0.0, float(n)
    for _ in range(generations):
        angle = math.atan2(math.hypot(across, math.sqrt((d - 1) / num)), along)
        accuracy = 1 - angle / math.pi
        label_selection = selection(accuracy, made_noise, keep_right, keep_wrong)
        values["accuracy"].append(accuracy)
        values["share_wrong"].append(label_selection.share_wrong)
        values["share_wrong_kept"].append(label_selection.share_wrong_kept)
        rate = keep_right * (1 - label_selection.share_wrong) + keep_wrong * label_selection.share_wrong
        tries = min(MAX_TRIES, max(1, math.ceil(0.97 / rate))) if is_refilled and rate else 1  # a low estimate
        for name, keep, share in (
            ("right", keep_right, 1 - label_selection.share_wrong),
            ("wrong", keep_wrong, label_selection.share_wrong),
        ):
            num_rows = max(1.0, tries * num_from_model * share)
            values[f"keep_{name}_deviation"].append(math.sqrt(keep * (1 - keep) / num_rows))
        num_made = float(num_from_model) if is_refilled else num_from_model * rate
        num = max(1.0, num_made + num_fresh)
        along = (num_made * label_selection.along + num_fresh * SIGNAL * (1 - 2 * noise)) / num
        across = num_made * label_selection.across / num
    values["breakdown_share"] = [breakdown_share(keep_right, keep_wrong)] * generations
    return {name: np.array(numbers) for name, numbers in values.items()}


def verified_accuracy(accuracy: float, verifier: float, generations: int) -> np.ndarray:
    """Accuracy of generations 1 .. `generations` for many rows, float64 (generations,), when a classifier of accuracy
    `verifier` keeps the labels that it agrees with. `accuracy` is the accuracy of generation 1.

    The mean of y x over kept rows halves the angle between the model and the verifier (`selection` with phi = 1 and
    psi = 0 about the verifier's truth), so each generation halves the angle, and the error of the verifier remains.
    Derived here. The first model's error is assumed orthogonal to the verifier's error.
    """
    model_angle, verifier_angle = math.pi * (1 - accuracy), math.pi * (1 - verifier)
    # Directions in three dimensions: the truth, the verifier's error, the model's own error.
    model = np.array([math.cos(model_angle), 0.0, math.sin(model_angle)])
    judge = np.array([math.cos(verifier_angle), math.sin(verifier_angle), 0.0])
    accuracies = []
    for _ in range(generations):
        accuracies.append(1 - math.acos(np.clip(model[0], -1, 1)) / math.pi)
        model = model + judge
        model /= np.sqrt((model**2).sum()) or 1.0
    return np.array(accuracies)
