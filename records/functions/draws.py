"""Random draws of one row, from (seed, row number) alone.

They use the raw bits of PCG64, whose stream numpy keeps from version to version (NEP 19), and integer arithmetic. So a
row is the same on every machine and in every version of Python and numpy.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from gristmill.records.ids import MASK_64

T = TypeVar("T")
NUM_WORDS = 64  # of 64 bits that are taken at once


class Draws:
    """Independent uniform draws. The bias of a draw below n is under n / 2^64."""

    __slots__ = ("_bits", "_words")

    def __init__(self, seed: int, number: int) -> None:
        """`seed`: any integer, modulo 2^64; `number`: of the row, from 0."""
        self._bits = np.random.PCG64(np.random.SeedSequence(seed & MASK_64, spawn_key=(number,)))
        self._words: list[int] = []

    def below(self, stop: int) -> int:
        """An integer in [0, stop), for stop up to 2^48."""
        if not self._words:
            self._words = self._bits.random_raw(NUM_WORDS).tolist()
        return self._words.pop() * stop >> 64

    def between(self, first: int, last: int) -> int:
        """An integer in [first, last], both included."""
        return first + self.below(last - first + 1)

    def chance(self, above: int, below: int) -> bool:
        """True with probability above / below."""
        return self.below(below) < above

    def choice(self, values: Sequence[T]) -> T:
        """One of the values, each as likely."""
        return values[self.below(len(values))]

    def sample(self, values: Sequence[T], number: int) -> list[T]:
        """`number` of the values without repetition, in random order. Raises ValueError if there are fewer."""
        rest = list(values)
        if number > len(rest):
            raise ValueError(f"{number} of {len(rest)} values")
        for place in range(number):
            other = place + self.below(len(rest) - place)
            rest[place], rest[other] = rest[other], rest[place]
        return rest[:number]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """All values in random order."""
        return self.sample(values, len(values))

    def weighted(self, cumulative: Sequence[int]) -> int:
        """A place i, with probability in proportion to cumulative[i] - cumulative[i - 1]; the last is above 0."""
        return bisect_right(cumulative, self.below(cumulative[-1]))
