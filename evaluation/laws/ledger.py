"""Exact expected second moments of any chain of fits whose variance is that of the rows it learns from.

One identity drives it: a model with the weighted mean and variance of its rows has E v + E|mu - mu_0|^2 = the mean
square of those rows about mu_0 (law of total variance). Rows of a shard are exchangeable, and what matters of the
past is the mean product of a row of one shard with a row of another; fits and draws act on these products linearly.
So replace, accumulate, windows, subsamples, fixed and fresh real rows, weights and biased sampling all have exact
laws. Derived here.

It holds for Gaussians, mixtures of them fitted by EM with full covariances, kernel density estimates and categories
(variance: the Gini-Simpson index); in d dimensions for the trace.
"""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np


class Draw(NamedTuple):
    """Some of the rows that a model learns from. `weight` is that of each row.

    all: every row of the shards. without, with: `num` rows of the shards together, drawn at random without or with
    replacement. mixed: `num` rows, each of shard i with probability shares[i], none twice.
    """

    shards: tuple[Hashable, ...]
    num: int
    how: Literal["all", "without", "with", "mixed"] = "all"
    weight: float = 1.0
    shares: tuple[float, ...] = ()


class Moments(NamedTuple):
    """Expectations over chains, in units of the true variance."""

    variance: float  # E v
    spread: float  # E |mu - mu_0|^2, the variance of mu between chains
    of_rows: float  # E |x - mu_0|^2 of the rows learnt from


class Ledger:
    """The products of the shards that are still in use; memory is their number squared.

    `noise`: the variance that a shard's rows have about their model, when it is not the model's own (linear
    regression on one design: a "row" is the least-squares estimate of a whole set of labels).
    """

    def __init__(self, is_unbiased: bool = False, noise: float | None = None) -> None:
        self._is_unbiased, self._noise = is_unbiased, noise
        self._names: list[Hashable] = []
        self._sizes, self._squares, self._last = np.zeros(0), np.zeros(0), np.zeros(0)
        self._products = np.zeros((0, 0))
        self._moments: Moments | None = None

    def add_real(self, name: Hashable, num: int) -> None:
        """A shard of `num` independent real rows."""
        square = 1.0 if self._noise is None else self._noise
        self._add(name, num, square, np.zeros(len(self._names)), 0.0, 0.0)

    def add_made(self, name: Hashable, num: int, bias: float = 1.0) -> None:
        """A shard of `num` rows that the model fitted last has made, with `bias` times its variance."""
        if self._moments is None:
            raise ValueError("no model has been fitted yet")
        inside, spread, _ = self._moments
        variance = bias * (inside if self._noise is None else self._noise)
        self._add(name, num, spread + variance, self._last, spread, spread)

    def _add(self, name: Hashable, num: int, square: float, products: np.ndarray, own: float, with_last: float) -> None:
        if name in self._names or num < 1:
            raise ValueError(f"shard {name}: named twice, or without rows")
        size = len(self._names)
        wider = np.zeros((size + 1, size + 1))
        wider[:size, :size] = self._products
        wider[size, :size] = wider[:size, size] = products
        wider[size, size] = own
        self._products = wider
        self._names.append(name)
        self._sizes, self._squares = np.append(self._sizes, num), np.append(self._squares, square)
        self._last = np.append(self._last, with_last)

    def forget(self, keep: Sequence[Hashable]) -> None:
        """Drop all shards but these."""
        wanted = set(keep)
        at = [i for i, name in enumerate(self._names) if name in wanted]
        self._names = [self._names[i] for i in at]
        self._sizes, self._squares, self._last = self._sizes[at], self._squares[at], self._last[at]
        self._products = self._products[np.ix_(at, at)]

    def fit(self, draws: Sequence[Draw]) -> Moments:
        """Fit a model to the rows of the draws together. Raises ValueError for draws that the shards do not hold."""
        mass = sum(draw.num * draw.weight for draw in draws)
        with_own = self._products.copy()  # of two rows of a shard that may be the same row
        own = (self._squares + (self._sizes - 1) * np.diag(self._products)) / np.maximum(self._sizes, 1)
        np.fill_diagonal(with_own, own)
        pull, beyond, crowding = np.zeros(len(self._names)), 0.0, 0.0
        for draw in draws:
            share, part = self._shares(draw), draw.num * draw.weight / mass
            pull += part * share
            if draw.how != "all":
                every = float(share @ with_own @ share)
                beyond += part**2 * (self._square_of_mean(draw, share, every) - every)
            crowding += draw.num * (draw.weight / mass) ** 2
        of_rows = float(pull @ self._squares)
        self._last = with_own @ pull
        spread = float(pull @ self._last + beyond)
        inside = of_rows - spread
        if self._is_unbiased:
            inside /= 1 - crowding
        self._moments = Moments(inside, spread, of_rows)
        return self._moments

    def _shares(self, draw: Draw) -> np.ndarray:
        places = [self._names.index(name) for name in draw.shards]
        found, there = np.zeros(len(self._names)), self._sizes[places]
        if draw.how == "mixed":
            found[places] = draw.shares
            return found
        if (
            draw.num < 1
            or (draw.num > there.sum() and draw.how != "with")
            or (draw.how == "all" and draw.num != there.sum())
        ):
            raise ValueError(f"{draw.num} rows ({draw.how}) of {int(there.sum())}")
        found[places] = there / there.sum()
        return found

    def _square_of_mean(self, draw: Draw, share: np.ndarray, every: float) -> float:
        """E of the squared mean of drawn rows: own pairs and other pairs. `every`: that of all rows of the shards."""
        square, m = float(share @ self._squares), draw.num
        if draw.how == "with":
            others = every
        elif draw.how == "mixed":
            others = float(share @ self._products @ share)
        else:
            in_pool = float(sum(self._sizes[self._names.index(name)] for name in draw.shards))
            others = (in_pool * every - square) / (in_pool - 1) if in_pool > 1 else square
        return square / m + (m - 1) / m * others
