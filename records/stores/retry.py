"""Patience with a store in trouble: retries with exponential backoff and full jitter, within a bound in seconds.

The bound holds twice: for one request since it began, and for the store as a whole since it last answered anything.
So when a store is gone for good, requests that many threads make end together, and what a clean stop still asks of it
(the manifest, the lease) is tried once each and not for minutes.
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
LOOK_UP_S = 0.2

_BOUND_S: ContextVar[float | None] = ContextVar("patience_s", default=None)


def retry_s() -> float:
    """The patience with a store in seconds, from the environment. Raises UserError when it is no number above 0."""
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
    """At most so many seconds of retries for each request that this thread makes inside."""
    token = _BOUND_S.set(seconds)
    try:
        yield
    finally:
        _BOUND_S.reset(token)


class Outage:
    """How long a store has not answered; shared by all threads that use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = self._last = 0.0  # monotonic seconds; 0.0: it answers
        self.has_given_up = False  # a plain flag: a signal handler sets it

    def answered(self) -> None:
        with self._lock:
            self._since = 0.0

    def failed(self, patience_s: float) -> float:
        """Note a failure; returns the seconds since the first one after the last answer."""
        now = time.monotonic()
        with self._lock:
            if not self._since or now - self._last > max(patience_s, MAX_DELAY_S):
                self._since = now  # nobody has asked for long: that silence is nobody's failure
            self._last = now
            return now - self._since

    def give_up(self) -> None:
        """From now on nothing is tried twice, and who waits for the next try stops waiting."""
        self.has_given_up = True

    @property
    def is_hopeless(self) -> bool:
        """Whether to ask at all makes somebody wait for nothing."""
        return self.has_given_up and self._since > 0


class Tries:
    """The tries of one request."""

    def __init__(self, outage: Outage, patience_s: float) -> None:
        bound_s = _BOUND_S.get()
        self.outage = outage
        self.patience_s = patience_s if bound_s is None else min(bound_s, patience_s)
        self.num_failed = 0
        self._began = time.monotonic()

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    def again(self) -> bool:
        """After a failed try: wait, then True; or False when patience has ended."""
        longest_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.num_failed, 10))
        self.num_failed += 1
        left_s = self.patience_s - max(self.spent_s, self.outage.failed(self.patience_s))
        if left_s <= 0:
            return False
        # Full jitter: requests that failed together do not come back together. The last try comes at the bound.
        end = time.monotonic() + min(random.uniform(0, longest_s), left_s)
        while not self.outage.has_given_up and (rest_s := end - time.monotonic()) > 0:
            time.sleep(min(rest_s, LOOK_UP_S))
        return not self.outage.has_given_up
