"""Signals during a long job: stop cleanly at the first, at once at the second."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

STOPPING = "stopping after the work in commit; interrupt again to stop at once"
LINE_S = 1.0  # the most that the end of a job waits for that line

logger = logging.getLogger(__name__)


class StopGroup:
    """Jobs in threads of one process, which a signal stops together. Python gives signals to the main thread only."""

    def __init__(self) -> None:
        self.is_stopping = False
        self._jobs: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def stop(self) -> None:
        """Ask all jobs to end, and those that join later too. A signal handler may call it."""
        self.is_stopping = True
        for stop, _ in list(self._jobs):
            stop()

    def give_up(self) -> None:
        for _, give_up in list(self._jobs):
            give_up()

    @contextmanager
    def joined(self, stop: Callable[[], None], give_up: Callable[[], None]) -> Iterator[None]:
        job = (stop, give_up)
        self._jobs.append(job)
        try:
            if self.is_stopping:
                stop()
            yield
        finally:
            self._jobs.remove(job)


GROUP: ContextVar[StopGroup | None] = ContextVar("stop_group", default=None)  # of the job's thread


def is_stopping() -> bool:
    """Whether the StopGroup of this thread, if it has one, was stopped."""
    group = GROUP.get()
    return group is not None and group.is_stopping


@contextmanager
def interruptible(stop: Callable[[], None], give_up: Callable[[], None], stopping: str = STOPPING) -> Iterator[None]:
    """Handle SIGINT and SIGTERM for the block: the first calls `stop`, the second `give_up` and raises
    KeyboardInterrupt.

    `stop` asks the job to end after the work in commit. Nothing that is committed is lost either way. `stopping` is
    the line that the first signal logs. In a thread with a StopGroup, the group calls both.
    """
    if (group := GROUP.get()) is not None:
        with group.joined(stop, give_up):
            yield
        return
    is_stopping = False
    # Written on a thread: a handler of the log may wait for a lock that the interrupted code holds.
    line = threading.Thread(target=logger.warning, args=(stopping,), daemon=True)

    def handle(number: int, frame: Any) -> None:
        nonlocal is_stopping
        if is_stopping:
            give_up()
            raise KeyboardInterrupt
        is_stopping = True
        stop()
        line.start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if line.ident is not None:
            line.join(LINE_S)
        for number, handler in before.items():
            signal.signal(number, handler)
