"""Finds the asks that kill their engine: a suspect lot runs alone on an engine, in ever smaller spans of asks.

The other asks of the lot survive. A lot of n asks costs about log16(n) further engines until one ask is left. Halving
would cost log2(n), and each loss costs the start of an engine. A lot whose engines also had other lots runs whole
first, since only one of them is likely to hold the ask.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

SUSPECT_AFTER = 2  # engines lost under a lot before it goes to quarantine
SPLIT = 16  # number of parts of a suspect span
POISON_TRIES = 2  # engines that a single ask must kill before it is rejected


@dataclass
class Quarantine:
    """Spans of a suspect lot: those still to generate, in row order, and the generated rows."""

    num_rows: int
    is_one_of_many: bool = False  # whether other lots may be at fault as well
    todo: deque[tuple[int, int]] = field(default_factory=deque)
    parts: list[tuple[int, Any]] = field(default_factory=list)  # (first row, reference to the generated rows)
    refused: dict[int, str] = field(default_factory=dict)  # row: reason
    num_tries: int = 0  # of the first span, once it is a single ask

    def __post_init__(self) -> None:
        self.todo.extend([(0, self.num_rows)] if self.is_one_of_many else _cut(0, self.num_rows))

    @property
    def is_done(self) -> bool:
        return not self.todo

    @property
    def span(self) -> tuple[int, int]:
        """Rows [start, stop) to generate next, alone on an engine."""
        return self.todo[0]

    def finished(self, ref: Any) -> None:
        """Note that the first span has been generated."""
        start, _ = self.todo.popleft()
        self.parts.append((start, ref))
        self.num_tries = 0

    def blame(self, reason: str) -> int | None:
        """Note that the first span has killed an engine. Returns the row at fault, once it is known."""
        start, stop = self.todo[0]
        if stop - start > 1:
            self.todo.popleft()
            self.todo.extendleft(reversed(_cut(start, stop)))
            return None
        self.num_tries += 1
        if self.num_tries < POISON_TRIES:
            return None
        self.todo.popleft()
        self.num_tries = 0
        self.refused[start] = reason
        return start


def _cut(start: int, stop: int) -> list[tuple[int, int]]:
    """[start, stop) as at most SPLIT spans of similar size."""
    num_rows = stop - start
    num_spans = min(SPLIT, num_rows)
    edges = [start + num_rows * i // num_spans for i in range(num_spans + 1)]
    return list(pairwise(edges))
