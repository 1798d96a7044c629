"""Limits on calls and tokens a minute, as a window that slides: never more in any minute, wherever it starts."""

from collections import deque

SPAN_S = 61.0  # a minute, and a second in which requests may arrive closer together than they were sent
PARTS = 10  # of a minute, each with its part of the calls, so that a minute's calls are not sent at once


class RateWindow:
    """Counts amounts, each at its time, so that those of any `span_s` seconds add up to at most `limit`."""

    def __init__(self, limit: int, span_s: float = SPAN_S) -> None:
        self.limit, self.span_s = limit, span_s
        self._entries: deque[list[float]] = deque()  # [time, amount], oldest first
        self._total = 0.0

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` has room; 0 if it has now. More than the limit has room in an empty window."""
        while self._entries and self._entries[0][0] + self.span_s <= now:
            self._total -= self._entries.popleft()[1]
        if not self._entries:
            self._total = 0.0
        excess = self._total + min(amount, self.limit) - self.limit
        if excess <= 0:
            return 0.0
        for at, taken in self._entries:
            excess -= taken
            if excess <= 0:
                return max(at + self.span_s - now, 1e-3)
        return self.span_s

    def take(self, amount: float, now: float) -> list[float]:
        """Count an amount; returns the entry, which `correct` takes."""
        entry = [now, min(amount, self.limit)]
        self._entries.append(entry)
        self._total += entry[1]
        return entry

    def correct(self, entry: list[float], amount: float, now: float) -> None:
        """Replace the amount of an entry, if it still counts, by the true one."""
        if entry[0] + self.span_s > now:
            self._total += amount - entry[1]
            entry[1] = amount


def calls_window(per_minute: int) -> RateWindow:
    """A window for calls, over a part of a minute where the limit can be divided."""
    if per_minute >= 1000 or (per_minute >= 60 and per_minute % PARTS == 0):
        return RateWindow(per_minute // PARTS, SPAN_S / PARTS)
    return RateWindow(per_minute)
