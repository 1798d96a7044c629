"""Ctrl-C and SIGTERM while Ray starts or ends.

Ray's C++ parts do not survive an exception that a signal handler raises in the middle of either: the process dies of a
segmentation fault.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from gristmill.records.exit_codes import STOPPED
from gristmill.records.processes import run_last_steps

logger = logging.getLogger(__name__)

WAITING = "stopping; interrupt again to stop at once"


@contextmanager
def deferred_interrupts(end_at_once: Callable[[], None]) -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM wait until the end of the block; yields the event that says whether one has come.

    A second signal calls `end_at_once` and the last steps of the process (records/processes.py), then ends the process
    without unwinding it. Does nothing outside the main thread, where Python handles no signals.
    """
    interruption = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def handle(number: int, frame: Any) -> None:
        if interruption.is_set():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            end_at_once()
            run_last_steps()
            os._exit(STOPPED)
        interruption.set()
        # On a thread: a handler of the log may wait for a lock that the interrupted code holds.
        threading.Thread(target=logger.warning, args=(WAITING,), daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if(interruption: threading.Event) -> None:
    """Raise KeyboardInterrupt for an interruption that was deferred."""
    if interruption.is_set():
        raise KeyboardInterrupt


def shut_down(end_at_once: Callable[[], None]) -> None:
    """Stop a local Ray, or disconnect from a cluster; see `deferred_interrupts`."""
    with deferred_interrupts(end_at_once) as interruption:
        ray.shutdown()
    raise_if(interruption)
