"""Retries for a store in trouble: exponential backoff with full jitter, within a bound in seconds.

The bound holds for each request since its start, and for the whole store since its last answer. So the requests of many
threads end together when a store is gone. The last requests of a clean stop (manifest, lease) are then tried once.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gristmill.records.errors import UserError

VARIABLE = "GRISTMILL_S3_RETRY_S"
RETRY_S = 120.0
FIRST_DELAY_S, MAX_DELAY_S = 0.1, 10.0
LONGEST_PAUSE_S = 600.0  # of all pauses that a store asks for (Retry-After) before one request succeeds
LOOK_UP_S = 0.2

_BOUND_S: ContextVar[float | None] = ContextVar("patience_s", default=None)


def retry_s() -> float:
    """Seconds of retries, from the environment. Raises UserError for anything but a number above 0."""
    text = os.environ.get(VARIABLE, "").strip()
    try:
        seconds = float(text or RETRY_S)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{VARIABLE}={text}: must be a number of seconds above 0 (default {RETRY_S:.0f})")
    return seconds


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Limit retries to so many seconds for each request of this thread within the block."""
    token = _BOUND_S.set(seconds)
    try:
        yield
    finally:
        _BOUND_S.reset(token)


class Outage:
    """The time since a store last answered; all threads that use the store share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = self._last = 0.0  # monotonic seconds; 0.0: the store answers
        self.has_given_up = False  # a plain flag, because a signal handler sets it

    def answered(self) -> None:
        """Record an answer of the store."""
        with self._lock:
            self._since = 0.0

    def failed(self, patience_s: float) -> float:
        """Record a failure; returns the seconds since the first failure after the last answer."""
        now = time.monotonic()
        with self._lock:
            if not self._since or now - self._last > max(patience_s, MAX_DELAY_S):
                self._since = now  # there was no request for a long time: that pause is not an outage
            self._last = now
            return now - self._since

    def give_up(self) -> None:
        """Stop retrying, also for requests that wait for their next try."""
        self.has_given_up = True

    @property
    def is_hopeless(self) -> bool:
        """Whether a request would only delay the end of the process."""
        return self.has_given_up and self._since > 0


class Tries:
    """The tries of a request."""

    def __init__(self, outage: Outage, patience_s: float) -> None:
        bound_s = _BOUND_S.get()
        self.outage = outage
        self.patience_s = patience_s if bound_s is None else min(bound_s, patience_s)
        self.num_failed = 0
        self._began = time.monotonic()
        self._paused_s = 0.0

    @property
    def spent_s(self) -> float:
        """Seconds since the first try, without pauses that the store asked for."""
        return time.monotonic() - self._began - self._paused_s

    def again(self, pause_s: float = 0.0) -> bool:
        """After a failed try: wait, then return True; return False at once when the bound is reached.

        `pause_s`: the pause that the store asks for. It does not count towards the bound, but has its own.
        """
        longest_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.num_failed, 10))
        self.num_failed += 1
        left_s = self.patience_s - max(self.spent_s, self.outage.failed(self.patience_s))
        if left_s <= 0 or self._paused_s + pause_s > LONGEST_PAUSE_S:
            return False
        self._paused_s += pause_s
        # Full jitter: requests that failed together are not repeated together. The last try is at the bound.
        end = time.monotonic() + pause_s + min(random.uniform(0, longest_s), left_s)
        while not self.outage.has_given_up and (rest_s := end - time.monotonic()) > 0:
            time.sleep(min(rest_s, LOOK_UP_S))
        return not self.outage.has_given_up
