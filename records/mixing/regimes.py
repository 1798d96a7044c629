"""A regime is a data policy, not a loop: which rows each generation of a chain is trained on, real and synthetic.

Generation 1 is trained on real rows alone; generation k on rows that models 1 .. k-1 made and on real rows, as the
regime says. What it comes to, counted, is a mixture (records/mixing/mixing.py).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from gristmill.records.errors import UserError

REAL, SYNTHETIC = "real", "synthetic"
Shortfall = Literal["fail", "shrink", "resample", "real", "reweight"]


class Source(NamedTuple):
    """Rows that came at one time: real rows drawn for a generation (1: the first set), or those that its model made."""

    origin: str
    generation: int

    def __str__(self) -> str:
        return f"{self.origin}-{self.generation}"


FIRST = Source(REAL, 1)


@dataclass(frozen=True)
class Regime:
    """`[regime]` of a study. Names as in the literature: replace, accumulate, accumulate-subsample, fresh data."""

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
            raise ValueError("pool = 'window' needs window, the number of batches, and no other pool has one")
        if (self.real == "none") != (self.real_fraction == 0):
            raise ValueError("real = 'fixed' or 'fresh' needs a real_fraction above 0, and real = 'none' has none")
        if self.pool == "accumulate" and self.real == "fixed":
            raise ValueError("pool = 'accumulate' holds the first real set already; leave real out or take 'fresh'")
        if self.with_replacement and self.pool != "subsample":
            raise ValueError("with_replacement is for pool = 'subsample'")
        if self.bernoulli and (self.real != "fresh" or self.pool != "replace" or self.synthetic_max < 1):
            raise ValueError("bernoulli is for fresh real rows beside pool = 'replace'; it can keep no cap")
        if self.weights == "golden" and self.real == "none":
            raise ValueError("weights = 'golden' weighs real rows against synthetic ones; set real")
        if not self.growth > 0:
            raise ValueError("growth must be above 0")

    def num_rows(self, generation: int, n: int) -> int:
        """Rows that the regime asks for in a generation, a whole number of at least 1."""
        return max(1, round(n * self.growth ** (generation - 1)))

    def num_real(self, generation: int, n: int) -> int:
        """How many of them are to be real ones of its own (all in the first generation)."""
        num = self.num_rows(generation, n)
        return num if generation == 1 else math.floor(self.real_fraction * num + 0.5)

    def num_made(self, generation: int, n: int) -> int:
        """Rows that the model of a generation is to make: those that the next one needs of it."""
        needed = self.num_rows(generation + 1, n)
        return needed if self.bernoulli else max(1, needed - self.num_real(generation + 1, n))

    def batches(self, generation: int) -> list[Source]:
        """The pool of a generation, real rows beside it left out, oldest first."""
        made = [Source(SYNTHETIC, k) for k in range(1, generation)]
        if self.pool == "replace":
            return made[-1:]
        with_first = [] if self.real == "fixed" else [FIRST]
        if self.pool == "accumulate" and self.real == "fresh":
            with_first += [Source(REAL, k) for k in range(2, generation)]
        every = with_first + made
        return every[-self.window :] if self.pool == "window" else every

    def needed_later(self, source: Source, generation: int) -> bool:
        """Whether a generation after this one may still train on those rows."""
        if self.pool in ("accumulate", "subsample") or (source == FIRST and self.real == "fixed"):
            return True
        return source in self.batches(generation + 1)


def preset(name: str, real_fraction: float = 0.0) -> Regime:
    """A regime by the name that papers give it. Raises UserError for a name that is not known."""
    known = PRESETS.get(name)
    if known is None:
        raise UserError(f"regime '{name}' is not known; known: {', '.join(PRESETS)}")
    return replace(known, real_fraction=real_fraction) if real_fraction else known


PRESETS = {
    "replace": Regime(),
    "accumulate": Regime(pool="accumulate"),
    "accumulate-subsample": Regime(pool="subsample"),
    # The three loops of Alemohammad et al. (2023).
    "fully-synthetic": Regime(),
    "synthetic-augmentation": Regime(real="fixed", real_fraction=0.5),
    "fresh-data": Regime(real="fresh", real_fraction=0.5),
}
