"""What a replica reports of its asks, so that it is given more before it runs out of them."""

import time
from collections import deque
from dataclasses import dataclass

from gristmill.engines.throttle import Load, Throttle

FEED_S = 2.0  # a replica wants more asks when it will have begun all of its own in this time
RATE_S = 10.0  # the period over which the rate of begun asks is taken
LEAST_SHARE = 8  # and always when fewer than an eighth of its slots' number wait


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica has done and what it has left.

    num_done: finished asks, lots in flight included. num_tokens: generated tokens. num_received: asks that it was ever
    given. low_water: it wants more when fewer asks than this wait; None: it does not count them. load: its slots.
    paid: money for its calls, in the currency of the run.
    """

    num_done: int = 0
    num_tokens: int = 0
    num_received: int = 0
    low_water: int | None = 0
    load: Load | None = None
    paid: float = 0.0

    @property
    def num_waiting(self) -> int:
        return self.load.num_waiting if self.load else 0

    @property
    def news(self) -> list[int]:
        """What makes a report worth a call: [whether the replica wants more, num_received]."""
        return [self.low_water is not None and self.num_waiting < self.low_water, self.num_received]


NOTHING = Report()  # stands for a replica that has not reported: it wants nothing


class Reporter:
    """Makes the reports of a replica."""

    def __init__(self) -> None:
        self.num_received = 0
        self._marks: deque[tuple[float, int]] = deque()  # (time, begun asks), oldest first

    def report(self, progress: tuple[int, int], throttle: Throttle | None, paid: float = 0.0) -> Report:
        if throttle is None:
            return Report(*progress, self.num_received, None, None, paid)
        load = throttle.load
        return Report(*progress, self.num_received, self._low_water(load), load, paid)

    def _low_water(self, load: Load) -> int:
        now = time.monotonic()
        self._marks.append((now, load.num_begun))
        while now - self._marks[0][0] > RATE_S:
            self._marks.popleft()
        start, before = self._marks[0]
        per_s = (load.num_begun - before) / max(now - start, 1.0)
        return max(load.num_slots // LEAST_SHARE, round(FEED_S * per_s), 1)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How busy engines were: seconds of busy slots, seconds of all slots, and seconds with a free slot and no ask."""

    busy_s: float = 0.0
    slot_s: float = 0.0
    empty_s: float = 0.0
    open_s: float = 0.0

    @staticmethod
    def of(load: Load | None) -> "Occupancy":
        """Of one engine since it was opened; nothing of one that does not count its asks."""
        if load is None:
            return Occupancy()
        return Occupancy(load.busy_s, load.slot_s, load.empty_s, load.open_s)

    @property
    def share(self) -> float | None:
        """Share of the slots that were busy; None where none was counted."""
        return self.busy_s / self.slot_s if self.slot_s else None


class Totals:
    """What all engines of a pool have done, those that are gone included. Its cost does not grow with the engines."""

    def __init__(self) -> None:
        self.num_done = self.num_tokens = 0
        self.paid = 0.0
        self._seconds = [0.0] * 4  # as in Occupancy

    def advance(self, before: Report, after: Report) -> None:
        """Note that an engine that had reported `before` now reports `after`."""
        self.num_done += after.num_done - before.num_done
        self.num_tokens += after.num_tokens - before.num_tokens
        self.paid += after.paid - before.paid
        for sign, load in ((-1.0, before.load), (1.0, after.load)):
            if load is not None:
                for at, value in enumerate((load.busy_s, load.slot_s, load.empty_s, load.open_s)):
                    self._seconds[at] += sign * value

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(*self._seconds)
