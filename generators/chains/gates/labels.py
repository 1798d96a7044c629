"""Gates over labelled rows (x, y), after Feng et al. (2025, "Beyond model collapse", section 4)."""

import math
from dataclasses import dataclass

import numpy as np

from gristmill.generators.chains.contract import EarlierRows


@dataclass(frozen=True)
class Labels:
    """Keeps rows by two rates, one for right labels (phi) and one for wrong labels (psi), whatever their x. The rates 1
    and 0 make an oracle."""

    keep_right: float = 1.0  # Probability of keeping a row with a right label.
    keep_wrong: float = 0.0  # Probability of keeping a row with a wrong label.
    name: str = "labels"  # Name of the gate in the column kept_share_NAME.

    def __post_init__(self) -> None:
        if not 0 < self.keep_right <= 1 or not 0 <= self.keep_wrong <= 1:
            raise ValueError("keep_right must be in (0, 1] and keep_wrong in [0, 1]")

    def keep(self, rows: np.ndarray, random: np.random.Generator, earlier: EarlierRows) -> np.ndarray:
        right = rows[0, :, -1] * rows[0, :, 0] > 0
        return random.random(len(right)) < np.where(right, self.keep_right, self.keep_wrong)


@dataclass(frozen=True)
class Verifier:
    """Keeps rows whose label agrees with another linear classifier. The angle between its weights and the true weights
    is pi (1 - accuracy), in the plane of the first two coordinates."""

    accuracy: float  # Share of normal x that the other classifier labels right.
    name: str = "verifier"  # Name of the gate in the column kept_share_NAME.

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ValueError("accuracy must be in [0, 1]")

    def keep(self, rows: np.ndarray, random: np.random.Generator, earlier: EarlierRows) -> np.ndarray:
        angle = math.pi * (1 - self.accuracy)
        score = rows[0, :, 0] * math.cos(angle) + rows[0, :, 1] * math.sin(angle)
        keep: np.ndarray = rows[0, :, -1] * score > 0
        return keep
