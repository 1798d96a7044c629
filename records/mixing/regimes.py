"""Regimes: which real and synthetic rows each generation of a chain is trained on.

Generation 1 is trained on real rows only. Generation k is trained on rows of models 1 .. k-1 and on real rows, as the
regime states. A mixture (records/mixing/mixing.py) has the counts.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from gristmill.records.errors import UserError

REAL, SYNTHETIC = "real", "synthetic"
Shortfall = Literal["fail", "shrink", "resample", "real", "reweight"]


class Source(NamedTuple):
    """Rows of a generation: real rows drawn for it (1: the first set), or the rows that its model made."""

    origin: str
    generation: int

    def __str__(self) -> str:
        return f"{self.origin}-{self.generation}"


FIRST = Source(REAL, 1)


@dataclass(frozen=True)
class Regime:
    """`[regime]` of a study. The names are those of the literature, see PRESETS."""

    # Rows of earlier generations that a model learns from: of the last model ("replace"), all real and synthetic rows
    # so far ("accumulate"), a random subsample of those, or the last batches of them ("window").
    pool: Literal["replace", "accumulate", "subsample", "window"] = "replace"
    window: int = 0  # Number of batches in a window. The first real set counts as the oldest batch.
    with_replacement: bool = False  # Draws a subsample with replacement.
    # Real rows beside the pool: none, the first real set again ("fixed"), or new real rows ("fresh").
    real: Literal["none", "fixed", "fresh"] = "none"
    real_fraction: float = 0.0  # Share of real rows among the training rows.
    bernoulli: bool = False  # Makes each row real with probability `real_fraction` instead of an exact number of rows.
    # Weights of rows: equal ("pooled"), or the best weight of the real rows after He et al. 2025 ("golden").
    weights: Literal["pooled", "golden"] = "pooled"
    growth: float = 1.0  # Growth of the training set: generation k has n * growth^(k-1) rows.
    synthetic_max: float = 1.0  # Cap: the largest synthetic share of the training rows.
    # What to do when there are too few synthetic rows or the cap would be exceeded: stop ("fail"), train on fewer rows
    # ("shrink"), ask the model again or repeat rows ("resample"), add real rows ("real"), or lower the weight of
    # synthetic rows ("reweight").
    shortfall: Shortfall = "fail"

    def __post_init__(self) -> None:
        if not 0 <= self.real_fraction <= 1 or not 0 <= self.synthetic_max <= 1:
            raise ValueError("real_fraction and synthetic_max must lie in [0, 1]")
        if (self.pool == "window") != (self.window > 0):
            raise ValueError("window, the number of batches, is required with pool = 'window' and only there")
        if (self.real == "none") != (self.real_fraction == 0):
            raise ValueError("real = 'fixed' or 'fresh' needs a real_fraction above 0, and real = 'none' needs 0")
        if self.pool == "accumulate" and self.real == "fixed":
            raise ValueError("pool = 'accumulate' already holds the first real set; remove real or use 'fresh'")
        if self.with_replacement and self.pool != "subsample":
            raise ValueError("with_replacement needs pool = 'subsample'")
        if self.bernoulli and (self.real != "fresh" or self.pool != "replace" or self.synthetic_max < 1):
            raise ValueError("bernoulli needs real = 'fresh' and pool = 'replace', and cannot keep a cap")
        if self.weights == "golden" and self.real == "none":
            raise ValueError("weights = 'golden' needs real rows; set real")
        if not self.growth > 0:
            raise ValueError("growth must be above 0")

    def num_rows(self, generation: int, n: int) -> int:
        """Training rows of a generation, at least 1."""
        return max(1, round(n * self.growth ** (generation - 1)))

    def num_real(self, generation: int, n: int) -> int:
        """Training rows that are real rows beside the pool (in generation 1 all)."""
        num = self.num_rows(generation, n)
        return num if generation == 1 else math.floor(self.real_fraction * num + 0.5)

    def num_made(self, generation: int, n: int) -> int:
        """Rows that the model of a generation makes: those that the next generation needs."""
        needed = self.num_rows(generation + 1, n)
        return needed if self.bernoulli else max(1, needed - self.num_real(generation + 1, n))

    def batches(self, generation: int) -> list[Source]:
        """The pool of a generation, without the real rows beside it, oldest first."""
        synthetic = [Source(SYNTHETIC, k) for k in range(1, generation)]
        if self.pool == "replace":
            return synthetic[-1:]
        with_first = [] if self.real == "fixed" else [FIRST]
        if self.pool == "accumulate" and self.real == "fresh":
            with_first += [Source(REAL, k) for k in range(2, generation)]
        every = with_first + synthetic
        return every[-self.window :] if self.pool == "window" else every

    def needed_later(self, source: Source, generation: int) -> bool:
        """Whether a later generation may train on these rows."""
        if self.pool in ("accumulate", "subsample") or (source == FIRST and self.real == "fixed"):
            return True
        return source in self.batches(generation + 1)


def preset(name: str, real_fraction: float = 0.0) -> Regime:
    """A regime by its name in the literature. Raises UserError for an unknown name."""
    regime = PRESETS.get(name)
    if regime is None:
        raise UserError(f"unknown regime '{name}'; known: {', '.join(PRESETS)}")
    return replace(regime, real_fraction=real_fraction) if real_fraction else regime


PRESETS = {
    "replace": Regime(),
    "accumulate": Regime(pool="accumulate"),
    "accumulate-subsample": Regime(pool="subsample"),
    # The three loops of Alemohammad et al. (2023).
    "fully-synthetic": Regime(),
    "synthetic-augmentation": Regime(real="fixed", real_fraction=0.5),
    "fresh-data": Regime(real="fresh", real_fraction=0.5),
}
