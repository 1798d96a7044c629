"""Gates over labelled rows (x, y), after Feng et al. (2025, "Beyond model collapse", section 4)."""

import math
from dataclasses import dataclass

import numpy as np

from gristmill.generators.chains.contract import Past


@dataclass(frozen=True)
class Labels:
    """Keeps a row whose label is right with probability `keep_right` (phi) and one whose label is wrong with
    `keep_wrong` (psi), whatever its x: a verifier told by its two rates alone. 1 and 0: an oracle."""

    keep_right: float = 1.0
    keep_wrong: float = 0.0
    name: str = "labels"

    def __post_init__(self) -> None:
        if not 0 < self.keep_right <= 1 or not 0 <= self.keep_wrong <= 1:
            raise ValueError("keep_right must lie in (0, 1], keep_wrong in [0, 1]")

    def keep(self, rows: np.ndarray, random: np.random.Generator, past: Past) -> np.ndarray:
        right = rows[0, :, -1] * rows[0, :, 0] > 0
        return random.random(len(right)) < np.where(right, self.keep_right, self.keep_wrong)


@dataclass(frozen=True)
class Verifier:
    """Keeps rows whose label is the one that another linear classifier gives, which is right on `accuracy` of normal x:
    its weights lie pi (1 - accuracy) from the true ones, in the plane of the first two coordinates."""

    accuracy: float
    name: str = "verifier"

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ValueError("accuracy must lie in [0, 1]")

    def keep(self, rows: np.ndarray, random: np.random.Generator, past: Past) -> np.ndarray:
        angle = math.pi * (1 - self.accuracy)
        score = rows[0, :, 0] * math.cos(angle) + rows[0, :, 1] * math.sin(angle)
        keep: np.ndarray = rows[0, :, -1] * score > 0
        return keep
