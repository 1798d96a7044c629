"""Outages of the S3 server: killed, frozen or slowed down, and back after a while."""

import threading
import time
from collections.abc import Callable

from tests.chaos.plan import Kill
from tests.s3server import S3Server

STARTS = 3
SLOW_PERIOD_S, SLOW_RUNS_S = 0.5, 0.05


class Outages:
    """`over` ends every outage at once."""

    def __init__(self, server: S3Server, over: threading.Event) -> None:
        self.server, self.over = server, over

    def begin(self, kill: Kill) -> tuple[str, Callable[[], None]]:
        """Begin an outage; returns it in words, and what brings the server back when it is time."""
        if kill.kind == "s3-stop":
            self.server.kill()
            return f"the server, started again in {kill.outage_s:.0f} s", lambda: self._start(kill.outage_s)
        if kill.kind == "s3-freeze":
            self.server.freeze()
            return f"the server, for {kill.outage_s:.0f} s", lambda: self._thaw(kill.outage_s)
        return f"the server runs a tenth of the time, for {kill.outage_s:.0f} s", lambda: self._slow(kill.outage_s)

    def _start(self, outage_s: float) -> None:
        self.over.wait(outage_s)
        for attempt in range(STARTS):
            try:
                return self.server.start()
            except RuntimeError:
                self.server.kill()
                if attempt == STARTS - 1:
                    raise
        return None

    def _thaw(self, outage_s: float) -> None:
        self.over.wait(outage_s)
        self.server.thaw()

    def _slow(self, outage_s: float) -> None:
        end = time.monotonic() + outage_s
        while time.monotonic() < end and not self.over.wait(SLOW_RUNS_S):
            self.server.freeze()
            self.over.wait(SLOW_PERIOD_S - SLOW_RUNS_S)
            self.server.thaw()
