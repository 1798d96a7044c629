"""Signals stop a long job cleanly, whatever it is doing at that moment."""

import logging
import signal
import threading

from gristmill.jobs.terminal.session import interruptible
from tests.session import PATIENCE_S


class LockedLines(logging.Handler):
    """A handler that waits for a lock, as the log of events does."""

    def __init__(self) -> None:
        super().__init__()
        self.events_lock, self.is_written = threading.Lock(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        with self.events_lock:
            self.is_written.set()


def test_a_signal_inside_the_log_does_not_block_the_job() -> None:
    stops: list[bool] = []
    handler, root = LockedLines(), logging.getLogger("gristmill")
    root.addHandler(handler)
    try:
        with interruptible(lambda: stops.append(True), lambda: None):
            with handler.events_lock:  # the job is writing an event
                signal.raise_signal(signal.SIGINT)
            assert stops == [True]
            assert handler.is_written.wait(PATIENCE_S)
    finally:
        root.removeHandler(handler)
