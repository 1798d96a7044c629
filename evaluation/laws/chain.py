"""Description of a chain (family, regime, rows), and its exact expected moments by the ledger."""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from gristmill.evaluation.laws.gaussian import Estimator
from gristmill.evaluation.laws.ledger import Draw, Ledger, Moments
from gristmill.records.mixing.mixing import golden_weight

Shard = tuple[str, int]  # ("real" | "made", generation), or ("first", start) for a piece of the first real set


@dataclass(frozen=True)
class Setting:
    """Everything that a law may depend on. Generation 1 learns from n real rows.

    Generation k has n growth^(k-1) rows, rounded. The fraction `real_fraction` of them is beside the pool: new real
    rows ("fresh") or the first rows of the first real set ("fixed"). The pool is the rows of model k-1 (replace), the
    first real set and all later rows (accumulate), the last `window` batches of these (window), or a random subset of
    these (subsample). Each model writes as many rows as the next generation needs beside real rows. Raises ValueError
    for impossible numbers.
    """

    family: Literal["gaussian", "gmm", "kde", "multinomial", "linear_regression"]
    n: int
    pool: Literal["replace", "accumulate", "subsample", "window"] = "replace"
    real: Literal["none", "fixed", "fresh"] = "none"
    real_fraction: float = 0.0
    window: int = 0
    with_replacement: bool = False
    bernoulli: bool = False
    weights: Literal["pooled", "golden"] = "pooled"
    growth: float = 1.0
    estimator: Estimator = "mle"
    bias: float = 1.0  # variance of sampled rows over that of training rows; kde: 1 + relative bandwidth^2
    d: int = 1
    truth: float = 1.0  # the true variance, covariance trace or Gini-Simpson index; s^2 of a regression's labels
    truth_squares: float | None = None  # tr(S^2) / (tr S)^2 of the true covariance, for the deviation of the trace
    truth_log_det: float | None = None  # None: ln(truth) for d = 1, unknown beyond
    probabilities: tuple[float, ...] = ()  # true shares of a multinomial, for its support
    design: Literal["fresh", "same"] = "fresh"  # of a regression: new X for each batch, or one X for all

    def __post_init__(self) -> None:
        if self.n < 1 or self.d < 1 or not self.growth > 0 or not self.bias >= 0 or not self.truth >= 0:
            raise ValueError("n and d must be at least 1, growth above 0, bias and truth at least 0")
        if not 0 <= self.real_fraction <= 1 or (self.real == "none") != (self.real_fraction == 0):
            raise ValueError("real = 'fixed' or 'fresh' needs a real_fraction in (0, 1], and real = 'none' needs 0")
        if (self.pool == "window") != (self.window > 0):
            raise ValueError("pool = 'window' needs a window of 1 or more, and other pools have none")

    def rows(self, generation: int) -> int:
        """Training rows of a generation."""
        return max(1, round(self.n * self.growth ** (generation - 1)))

    def real_rows(self, generation: int) -> int:
        """Real rows beside the pool; all rows of generation 1."""
        num = self.rows(generation)
        return num if generation == 1 else math.floor(self.real_fraction * num + 0.5)

    def synthetic_rows(self, generation: int) -> int:
        """Rows that the model of a generation writes for the next generation."""
        needed = self.rows(generation + 1)
        return needed if self.bernoulli else max(1, needed - self.real_rows(generation + 1))


def moments(setting: Setting, generations: int) -> tuple[Moments, ...] | None:
    """Expected moments of generations 1 .. `generations` in units of the truth; None for settings without a ledger.

    For a linear regression on one design, spread is the test error in units of the error of one fit, and variance is
    its noise. Time grows with generations * shards^2, so with the cube of the generations if all rows are kept.
    """
    return _moments(setting, generations) if _can_follow(setting, generations) else None


def _can_follow(setting: Setting, generations: int) -> bool:
    if setting.bernoulli and (setting.real != "fresh" or setting.pool != "replace" or setting.weights != "pooled"):
        return False
    if setting.weights == "golden" and (setting.real == "none" or setting.pool == "subsample"):
        return False
    if setting.pool == "accumulate" and setting.real == "fixed":
        return False  # the first set would count twice
    later = range(2, generations + 1)
    if setting.real == "fixed" and any(setting.real_rows(k) > setting.n for k in later):
        return False
    if setting.family == "linear_regression":  # the ledger covers whole batches on one design only
        same = setting.design == "same" and setting.growth == 1 and setting.bias == 1
        return same and setting.real == "none" and setting.pool != "subsample"
    if setting.pool == "subsample" and not setting.with_replacement:
        in_pool = 0 if setting.real == "fixed" else setting.n
        for k in later:
            in_pool += setting.synthetic_rows(k - 1)
            if setting.rows(k) - setting.real_rows(k) > in_pool:
                return False
    if setting.estimator == "unbiased":
        return setting.n > 1 and all(setting.rows(k) > 1 for k in later)
    return True


@lru_cache(maxsize=256)
def _moments(setting: Setting, generations: int) -> tuple[Moments, ...]:
    is_regression = setting.family == "linear_regression"
    ledger = Ledger(setting.estimator == "unbiased" and not is_regression, 1.0 if is_regression else None)
    sizes = _Sizes(setting, generations)
    for name, num in sizes.first:
        ledger.add_real(name, num)
    without_first = setting.real == "fixed" or setting.pool == "replace"
    pool: list[Shard] = [] if without_first else [name for name, _ in sizes.first]
    by_generation = [ledger.fit([Draw((name,), num) for name, num in sizes.first])]
    for k in range(2, generations + 1):
        ledger.add_synthetic(("made", k - 1), sizes.synthetic(k - 1), setting.bias)
        pool.append(("made", k - 1))
        if setting.pool == "window":
            pool = pool[-setting.window :]
        fresh = ("real", k)
        if setting.bernoulli:  # one slot for every row, even if the expected number rounds to 0
            ledger.add_real(fresh, setting.rows(k))
        elif setting.real == "fresh" and sizes.real(k):
            ledger.add_real(fresh, sizes.real(k))
        by_generation.append(ledger.fit(sizes.draws(k, pool)))
        if setting.pool == "accumulate" and setting.real == "fresh" and sizes.real(k):
            pool.append(fresh)
        if setting.pool == "replace":
            pool = []
        ledger.forget([*pool, *(name for name, _ in sizes.first if setting.real == "fixed")])
    return tuple(by_generation)


class _Sizes:
    """Numbers of rows of shards. A batch of a regression counts as one row: its estimate."""

    def __init__(self, setting: Setting, generations: int) -> None:
        self._setting = setting
        self._one = setting.family == "linear_regression"
        ends = {self._num_draws(setting.n)}
        if setting.real == "fixed":  # pieces such that the fixed rows of every generation are whole pieces
            ends |= {setting.real_rows(k) for k in range(2, generations + 1)} - {0}
        cuts = [0, *sorted(ends)]
        self.first = [(("first", begin), end - begin) for begin, end in pairwise(cuts)]
        self._counts = {name: num for name, num in self.first}

    def _num_draws(self, num: int) -> int:
        return min(num, 1) if self._one else num

    def synthetic(self, k: int) -> int:
        num = self._num_draws(self._setting.synthetic_rows(k))
        self._counts[("made", k)] = num
        return num

    def real(self, k: int) -> int:
        num = self._setting.real_rows(k)
        self._counts[("real", k)] = num
        return num

    def draws(self, k: int, pool: list[Shard]) -> list[Draw]:
        """The training rows of generation k > 1."""
        setting, beside = self._setting, self._setting.real_rows(k)
        num_rows = setting.rows(k)
        if setting.bernoulli:
            shares = (setting.real_fraction, 1 - setting.real_fraction)
            return [Draw((("real", k), ("made", k - 1)), num_rows, "mixed", shares=shares)]
        real: list[Draw] = []
        if setting.real == "fresh" and beside:
            real = [Draw((("real", k),), beside)]
        elif setting.real == "fixed":
            real = [Draw((name,), num) for name, num in self.first if name[1] < beside]
        if setting.pool == "subsample":
            how: Literal["with", "without"] = "with" if setting.with_replacement else "without"
            return [*real, *([Draw(tuple(pool), num_rows - beside, how)] if num_rows > beside else [])]
        if setting.pool == "replace" and num_rows == beside:
            return real
        if setting.weights == "pooled":
            return [*real, *([Draw(tuple(pool), sum(self._counts[name] for name in pool))] if pool else [])]
        pool_draws = [Draw((name,), self._counts[name]) for name in pool]
        is_synthetic = [name[0] == "made" for name in pool]
        num_synthetic = sum(draw.num for draw, synthetic in zip(pool_draws, is_synthetic) if synthetic)
        num_real = sum(draw.num for draw in real) + sum(
            draw.num for draw, synthetic in zip(pool_draws, is_synthetic) if not synthetic
        )
        if num_synthetic and num_real:
            best = golden_weight(num_real / num_synthetic)
            weight = (1 - best) / best * num_real / num_synthetic
            pool_draws = [
                draw._replace(weight=weight) if synthetic else draw for draw, synthetic in zip(pool_draws, is_synthetic)
            ]
        return [*real, *pool_draws]
