"""Gates by kind: verifiers that select rows of a model for training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, EarlierRows, Gate
from gristmill.generators.chains.gates.labels import Labels, Verifier
from gristmill.generators.chains.gates.rows import Dedup, StageGate, stage_identity
from gristmill.records.errors import UserError
from gristmill.records.spec import build, literals, nearest


@dataclass(frozen=True)
class Ball:
    """Keeps (x, y) where |y - x . centre| <= radius |x| + slack: a verifier with its own belief about the truth (Yi et
    al. 2025, section 3)."""

    centre: float  # Weights that the verifier believes in: the same number in every dimension.
    radius: float  # Allowed error of a label, relative to |x|.
    slack: float = 0.0  # Allowed error of a label beside `radius`.
    name: str = "ball"  # Name of the gate in the column kept_share_NAME.

    def __post_init__(self) -> None:
        if self.radius < 0 or self.slack < 0 or self.radius + self.slack == 0:
            raise ValueError("radius and slack must be at least 0, and not both 0")

    def keep(self, rows: np.ndarray, random: np.random.Generator, earlier: EarlierRows) -> np.ndarray:
        x, y = rows[0, :, :-1], rows[0, :, -1]
        apart = np.abs(y - self.centre * x.sum(axis=1))
        return apart <= self.radius * np.sqrt((x**2).sum(axis=1)) + self.slack


@dataclass(frozen=True)
class Interval:
    """Keeps rows whose first column is in [low, high]: a filter that cuts tails."""

    low: float  # Smallest value that is kept.
    high: float  # Largest value that is kept.
    name: str = "interval"  # Name of the gate in the column kept_share_NAME.

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError("low must be below high")

    def keep(self, rows: np.ndarray, random: np.random.Generator, earlier: EarlierRows) -> np.ndarray:
        first = rows[0, :, 0]
        return (first >= self.low) & (first <= self.high)


KINDS: dict[str, type] = {"ball": Ball, "interval": Interval, "labels": Labels, "verifier": Verifier}
FITS = {
    "ball": ("linear_regression",),
    "interval": ("gaussian", "gmm", "kde"),
    "labels": ("linear_classifier",),
    "verifier": ("linear_classifier",),
}
OF_TABLES = ("dedup", "stage")  # for every family whose rows are a table


def make_gates(tables: Sequence[Mapping[str, Any]], family: ChainFamily) -> list[Gate]:
    """The gates of a study. Raises UserError for an unknown gate, or for a gate that cannot read the family's rows."""
    return [_make(dict(table), family, f"gates[{number}]") for number, table in enumerate(tables)]


def _make(keys: dict[str, Any], family: ChainFamily, where: str) -> Gate:
    kind = keys.pop("kind", None)
    if kind in OF_TABLES:
        columns = family.columns()
        if columns is None:
            raise UserError(f"{where}: '{kind}' reads rows of a table (of a model or a text), not of {family.kind}")
        if kind == "dedup":
            return build(Dedup, keys, where).of(family)
        return StageGate(keys, family, where)
    if kind not in KINDS:
        raise UserError(f"{where}: unknown kind '{kind}'{nearest(str(kind), [*KINDS, *OF_TABLES])}")
    if family.kind not in FITS[kind]:
        raise UserError(f"{where}: '{kind}' judges rows of {' and '.join(FITS[kind])}, not {family.kind}")
    return build(KINDS[kind], keys, where)


def identities(tables: Sequence[Mapping[str, Any]]) -> Any:
    """Literals that decide which rows gates keep: their tables, and digests of the files that stages read."""
    return [[t, stage_identity(json.dumps(t))] if t.get("kind") == "stage" else t for t in literals(tables)]
