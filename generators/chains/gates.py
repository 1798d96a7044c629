"""Verifiers inside the loop: which of the rows that a model made may be trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generators.chains.contract import ChainFamily, Gate
from records.errors import UserError
from records.spec import build, nearest


@dataclass(frozen=True)
class Ball:
    """Keeps (x, y) where |y - x . centre| <= radius |x| + slack: a verifier that believes in another truth than the
    real one (Yi et al. 2025, section 3). `centre` is the same number in every dimension."""

    centre: float
    radius: float
    slack: float = 0.0
    name: str = "ball"

    def __post_init__(self) -> None:
        if self.radius < 0 or self.slack < 0 or self.radius + self.slack == 0:
            raise ValueError("radius and slack must not be negative, and not both 0")

    def keep(self, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        x, y = rows[0, :, :-1], rows[0, :, -1]
        apart = np.abs(y - self.centre * x.sum(axis=1))
        return apart <= self.radius * np.sqrt((x**2).sum(axis=1)) + self.slack


@dataclass(frozen=True)
class Interval:
    """Keeps rows whose first column lies in [low, high]: a filter that knows no tails."""

    low: float
    high: float
    name: str = "interval"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError("low must be below high")

    def keep(self, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        first = rows[0, :, 0]
        return (first >= self.low) & (first <= self.high)


KINDS: dict[str, type] = {"ball": Ball, "interval": Interval}
FITS = {"ball": ("linear_regression",), "interval": ("gaussian", "gmm", "kde")}


def make_gates(tables: Sequence[Mapping[str, Any]], family: ChainFamily) -> list[Gate]:
    """Raises UserError for a gate that is not known, or that cannot judge the family's rows."""
    made: list[Gate] = []
    for number, table in enumerate(tables):
        rest = dict(table)
        kind = rest.pop("kind", None)
        if kind not in KINDS:
            raise UserError(f"gates[{number}]: kind '{kind}' is not known{nearest(str(kind), KINDS)}")
        if family.kind not in FITS[kind]:
            raise UserError(f"gates[{number}]: '{kind}' judges rows of {' and '.join(FITS[kind])}, not {family.kind}")
        made.append(build(KINDS[kind], rest, f"gates[{number}]"))
    return made
