"""Finding the asks that kill their engine: a suspect lot is made alone, in ever smaller spans, and its mates survive.

A lot of n asks takes about log16(n) further engines to come down to the one ask at fault; halving would take log2(n),
and each of them costs an engine's start.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

SUSPECT_AFTER = 2  # engines lost under a lot before it is made alone
SPLIT = 16  # spans that a suspect span is cut into
POISON_TRIES = 2  # engines that one ask alone must kill before it is rejected


@dataclass
class Quarantine:
    """Spans of a suspect lot still to make, in row order, and what has been made of it."""

    num_rows: int
    todo: deque[tuple[int, int]] = field(default_factory=deque)
    parts: list[tuple[int, Any]] = field(default_factory=list)  # (first row, reference to the made rows)
    refused: dict[int, str] = field(default_factory=dict)  # row: reason
    num_tries: int = 0  # of the span at the head, once it is a single ask

    def __post_init__(self) -> None:
        self.todo.extend(_cut(0, self.num_rows))

    @property
    def is_done(self) -> bool:
        return not self.todo

    @property
    def span(self) -> tuple[int, int]:
        """Rows [start, stop) to make next, alone on an engine."""
        return self.todo[0]

    def made(self, ref: Any) -> None:
        """The span at the head has been made."""
        start, _ = self.todo.popleft()
        self.parts.append((start, ref))
        self.num_tries = 0

    def blame(self, reason: str) -> int | None:
        """The span at the head has killed an engine; the row that is at fault, once that is known."""
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
    """[start, stop) in at most SPLIT spans of about the same size."""
    num_rows = stop - start
    num_spans = min(SPLIT, num_rows)
    edges = [start + num_rows * i // num_spans for i in range(num_spans + 1)]
    return list(pairwise(edges))
