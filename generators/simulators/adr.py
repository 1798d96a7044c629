"""Automatic domain randomization: ranges that grow as a policy masters them (OpenAI 2019, 1910.07113, section 5).

Each parameter has a range that begins around its centre. With chance `boundary_share` an episode sets one parameter to
one end of its range and the others anywhere in theirs; its performance goes into that end's buffer. A full buffer (m
entries) moves its end: outwards by a step where the mean is at least `high`, inwards where it is at most `low`; then it
is emptied. The measure of progress is the entropy of the ranges, the mean log of their widths, in nats a dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.generators.simulators.contract import Parameter

LOW, HIGH = 0, 1


@dataclass(frozen=True)
class AdrSpec:
    """Settings of automatic domain randomization. Performances are shares, 0 to 1."""

    boundary_share: float = 0.5  # share of episodes that set a parameter to an end of its range
    buffer: int = 16  # performances at an end before it moves
    low: float = 0.5  # mean performance at or below which an end moves inwards
    high: float = 0.9  # mean performance at or above which an end moves outwards
    delta: float = 0.05  # distance that an end moves, as a share of the parameter's full range

    def __post_init__(self) -> None:
        if not 0 < self.boundary_share <= 1 or self.buffer < 1 or not 0 < self.delta <= 1:
            raise ValueError("boundary_share and delta must lie in 0 to 1, and buffer must be at least 1")
        if self.low >= self.high:
            raise ValueError("low must be below high")


class Adr:
    """The ranges and their buffers: plain numbers, without random state."""

    def __init__(self, parameters: Sequence[Parameter], spec: AdrSpec) -> None:
        """Ranges begin a step wide on either side of the centre, within what is allowed."""
        self.parameters, self.spec = tuple(parameters), spec
        full = np.array([[p.low, p.high] for p in parameters])
        self.limits, self.step = full, (full[:, 1] - full[:, 0]) * spec.delta
        centre = np.array([p.centre for p in parameters])
        around = np.stack([centre - self.step, centre + self.step], 1)
        self.start = np.clip(around, full[:, :1], full[:, 1:])  # no end comes nearer to the centre than this
        self.ranges = self.start.copy()  # float64 (parameters, 2)
        self._sums = np.zeros((len(full), 2))
        self._counts = np.zeros((len(full), 2), int)
        self.num_moves = 0
        # A fixed parameter has no ends to move.
        self.movable = np.flatnonzero(full[:, 1] > full[:, 0])

    def draw(self, count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Worlds float64 (count, parameters), and the end that each is at, int (count, 2): parameter and LOW or HIGH,
        -1 for a world that was not set to an end."""
        low, high = self.ranges.T
        worlds = low + (high - low) * draw.random((count, len(low)))
        ends = np.full((count, 2), -1)
        at_end = draw.random(count) < self.spec.boundary_share
        which, side = draw.integers(max(len(self.movable), 1), size=count), draw.integers(2, size=count)
        if len(self.movable):
            ends[at_end] = np.stack([self.movable[which], side], 1)[at_end]
            rows = np.flatnonzero(at_end)
            worlds[rows, ends[rows, 0]] = self.ranges[ends[rows, 0], ends[rows, 1]]
        return worlds, ends

    def record(self, ends: np.ndarray, performances: np.ndarray) -> None:
        """Put performances into the buffers of their ends, in order, and move the ends whose buffers are full."""
        for (parameter, side), performance in zip(ends.tolist(), performances.tolist()):
            if parameter < 0:
                continue
            self._sums[parameter, side] += performance
            self._counts[parameter, side] += 1
            if self._counts[parameter, side] >= self.spec.buffer:
                mean = self._sums[parameter, side] / self._counts[parameter, side]
                self._sums[parameter, side], self._counts[parameter, side] = 0.0, 0
                if mean >= self.spec.high:
                    self._move(parameter, side, 1)
                elif mean <= self.spec.low:
                    self._move(parameter, side, -1)

    def _move(self, parameter: int, side: int, outwards: int) -> None:
        end = self.ranges[parameter, side] + outwards * self.step[parameter] * (1 if side == HIGH else -1)
        inner, outer = self.start[parameter, side], self.limits[parameter, side]
        self.ranges[parameter, side] = np.clip(end, min(inner, outer), max(inner, outer))
        self.num_moves += 1

    @property
    def entropy(self) -> float:
        """Mean log width over the parameters that may vary, in nats a dimension (section 5.2); 0 where none may.

        Widths are shares of the full ranges, so that units do not matter: 0 is randomization over all that is allowed.
        """
        if not len(self.movable):
            return 0.0
        width, full = np.diff(self.ranges)[:, 0][self.movable], np.diff(self.limits)[:, 0][self.movable]
        return float(np.log(width / full).mean())

    def ranges_by_name(self) -> dict[str, tuple[float, float]]:
        """The current ranges, by parameter."""
        return {p.name: (low, high) for p, (low, high) in zip(self.parameters, self.ranges.tolist())}

    def state(self) -> dict[str, np.ndarray]:
        """Everything that resuming needs."""
        moves = np.array([self.num_moves])
        return {"ranges": self.ranges.copy(), "sums": self._sums.copy(), "counts": self._counts.copy(), "moves": moves}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.ranges, self._sums = np.array(state["ranges"]), np.array(state["sums"])
        self._counts, self.num_moves = np.array(state["counts"]), int(state["moves"][0])
