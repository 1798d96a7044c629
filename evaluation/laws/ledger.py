"""Exact expected second moments of any chain of fits whose variance is that of their training rows.

A model with the weighted mean and variance of its rows has E v + E|mu - mu_0|^2 = the mean square of the rows about
mu_0 (law of total variance). The rows of a shard are exchangeable, so the past matters only through the mean product of
a row of one shard with a row of another. Fits and draws act linearly on these products. So replace, accumulate,
windows, subsamples, fixed and fresh real rows, weights and biased sampling all have exact laws. Derived here.

The ledger holds for Gaussians, Gaussian mixtures fitted by EM with full covariances, kernel density estimates and
categories (with the Gini-Simpson index as variance). In d dimensions it holds for the trace.
"""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np


class Draw(NamedTuple):
    """Training rows from some shards. `weight` is the weight of each row.

    all: every row of the shards. without, with: `num` random rows of all shards together, without or with replacement.
    mixed: `num` rows, each from shard i with probability shares[i], without repetition.
    """

    shards: tuple[Hashable, ...]
    num: int
    how: Literal["all", "without", "with", "mixed"] = "all"
    weight: float = 1.0
    shares: tuple[float, ...] = ()


class Moments(NamedTuple):
    """Expectations over chains, in units of the true variance."""

    variance: float  # E v
    spread: float  # E |mu - mu_0|^2: the variance of mu between chains
    of_rows: float  # E |x - mu_0|^2 of the training rows


class Ledger:
    """Mean products of rows of the shards in use. Memory grows with the square of their number.

    `noise` is the variance of a shard's rows about their model where it is not the model's own variance: in a linear
    regression on one design, a "row" is the least-squares estimate from a whole set of labels.
    """

    def __init__(self, is_unbiased: bool = False, noise: float | None = None) -> None:
        self._is_unbiased, self._noise = is_unbiased, noise
        self._names: list[Hashable] = []
        self._sizes, self._squares, self._last = np.zeros(0), np.zeros(0), np.zeros(0)
        self._products = np.zeros((0, 0))
        self._moments: Moments | None = None

    def add_real(self, name: Hashable, num: int) -> None:
        """Add a shard of `num` independent real rows."""
        square = 1.0 if self._noise is None else self._noise
        self._add(name, num, square, np.zeros(len(self._names)), 0.0, 0.0)

    def add_synthetic(self, name: Hashable, num: int, bias: float = 1.0) -> None:
        """Add a shard of `num` rows of the last model, with `bias` times its variance."""
        if self._moments is None:
            raise ValueError("no model is fitted yet")
        inside, spread, _ = self._moments
        variance = bias * (inside if self._noise is None else self._noise)
        self._add(name, num, spread + variance, self._last, spread, spread)

    def _add(
        self, name: Hashable, num: int, square: float, products: np.ndarray, own_product: float, with_last: float
    ) -> None:
        if name in self._names or num < 1:
            raise ValueError(f"shard {name}: duplicate name, or no rows")
        size = len(self._names)
        wider = np.zeros((size + 1, size + 1))
        wider[:size, :size] = self._products
        wider[size, :size] = wider[:size, size] = products
        wider[size, size] = own_product
        self._products = wider
        self._names.append(name)
        self._sizes, self._squares = np.append(self._sizes, num), np.append(self._squares, square)
        self._last = np.append(self._last, with_last)

    def forget(self, keep: Sequence[Hashable]) -> None:
        """Drop all shards but `keep`."""
        wanted = set(keep)
        at = [i for i, name in enumerate(self._names) if name in wanted]
        self._names = [self._names[i] for i in at]
        self._sizes, self._squares, self._last = self._sizes[at], self._squares[at], self._last[at]
        self._products = self._products[np.ix_(at, at)]

    def fit(self, draws: Sequence[Draw]) -> Moments:
        """Fit a model to the rows of all draws. Raises ValueError for draws of more rows than the shards hold."""
        mass = sum(draw.num * draw.weight for draw in draws)
        products = self._products.copy()  # of two rows of a shard, which may be the same row
        same_shard = (self._squares + (self._sizes - 1) * np.diag(self._products)) / np.maximum(self._sizes, 1)
        np.fill_diagonal(products, same_shard)
        pull, beyond, crowding = np.zeros(len(self._names)), 0.0, 0.0
        for draw in draws:
            share, part = self._shares(draw), draw.num * draw.weight / mass
            pull += part * share
            if draw.how != "all":
                every = float(share @ products @ share)
                beyond += part**2 * (self._square_of_mean(draw, share, every) - every)
            crowding += draw.num * (draw.weight / mass) ** 2
        of_rows = float(pull @ self._squares)
        self._last = products @ pull
        spread = float(pull @ self._last + beyond)
        inside = of_rows - spread
        if self._is_unbiased:
            inside /= 1 - crowding
        self._moments = Moments(inside, spread, of_rows)
        return self._moments

    def _shares(self, draw: Draw) -> np.ndarray:
        places = [self._names.index(name) for name in draw.shards]
        shares, sizes = np.zeros(len(self._names)), self._sizes[places]
        if draw.how == "mixed":
            shares[places] = draw.shares
            return shares
        if (
            draw.num < 1
            or (draw.num > sizes.sum() and draw.how != "with")
            or (draw.how == "all" and draw.num != sizes.sum())
        ):
            raise ValueError(f"{draw.num} rows ({draw.how}) of {int(sizes.sum())}")
        shares[places] = sizes / sizes.sum()
        return shares

    def _square_of_mean(self, draw: Draw, share: np.ndarray, every: float) -> float:
        """E of the squared mean of the drawn rows. `every` is that of all rows of the shards."""
        square, m = float(share @ self._squares), draw.num
        if draw.how == "with":
            others = every
        elif draw.how == "mixed":
            others = float(share @ self._products @ share)
        else:
            in_pool = float(sum(self._sizes[self._names.index(name)] for name in draw.shards))
            others = (in_pool * every - square) / (in_pool - 1) if in_pool > 1 else square
        return square / m + (m - 1) / m * others
