"""Limits and counts the concurrent jobs of an engine, over all lots of a replica.

Jobs beyond the limit wait here, not in the engine: requests in its queue hold memory and are lost if it dies.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
SLOTS = 256  # of an engine that does not state its own
AHEAD_SHARE = 8  # jobs in an engine's own queue: an eighth of its slots


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine does now, and how busy it has been since it was opened.

    num_slots: jobs that run at once. busy_s: seconds of busy slots, summed over the slots. empty_s: seconds in which a
    slot was free and no job waited. open_s: seconds since the start of the count. slot_s: the same, summed over slots,
    whose number may change.
    """

    num_slots: int
    num_waiting: int
    num_running: int
    num_begun: int
    busy_s: float
    empty_s: float
    open_s: float
    slot_s: float


@dataclass(eq=False, slots=True)
class Turn:
    """The turn of a job: whether it has begun, and what it waits on."""

    future: asyncio.Future[None]
    has_begun: bool = False


class Throttle:
    """Runs at most `num_slots + num_ahead` jobs at once, in the order of their arrival, on one event loop.

    num_slots: the jobs that the engine works on at once. num_ahead: jobs that lie in its own queue, so that a slot is
    taken again in the engine's next step. Both bind the jobs that begin from now on.
    """

    def __init__(self, num_slots: int, num_ahead: int = 0) -> None:
        self.num_slots, self.num_ahead = num_slots, num_ahead
        self._num_waiting = self._num_running = self._num_begun = 0
        self._busy_s = self._empty_s = self._slot_s = 0.0
        self._since = self._opened = time.monotonic()
        self._turns: deque[Turn] = deque()  # of the jobs that wait

    @property
    def load(self) -> Load:
        self._mark()
        counts = self._num_waiting, self._num_running, self._num_begun
        return Load(self.num_slots, *counts, self._busy_s, self._empty_s, self._since - self._opened, self._slot_s)

    def resize(self, num_slots: int) -> None:
        """Change the number of slots. Jobs that run go on; with fewer slots none begins until enough have ended."""
        self._mark()
        self.num_slots = num_slots
        self._begin()

    def _mark(self, waiting: int = 0, running: int = 0) -> None:
        """Count the time since the last change, then change the numbers."""
        now = time.monotonic()
        self._busy_s += min(self._num_running, self.num_slots) * (now - self._since)
        self._slot_s += self.num_slots * (now - self._since)
        if not self._num_waiting and self._num_running < self.num_slots:
            self._empty_s += now - self._since
        self._since = now
        self._num_waiting += waiting
        self._num_running += running
        self._num_begun += running > 0

    async def gather(
        self, jobs: Sequence[Coroutine[Any, Any, T] | None], order: Sequence[int] | None = None
    ) -> list[T | None]:
        """The results of the jobs in their order, None for None. When a job raises, the others are cancelled.

        `order`: numbers of the jobs in the order in which they begin.
        """
        tasks: list[asyncio.Task[T] | None] = [None] * len(jobs)
        for number in range(len(jobs)) if order is None else order:
            job = jobs[number]
            tasks[number] = self._start(job) if job is not None else None
        started = [task for task in tasks if task is not None]
        try:
            await asyncio.gather(*started)
        except BaseException:
            # The engine has died or the lot was cancelled: no job of the lot may use the engine any more.
            for task in started:
                task.cancel()
            await asyncio.gather(*started, return_exceptions=True)
            raise
        return [task.result() if task is not None else None for task in tasks]

    def _start(self, job: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        turn = Turn(asyncio.get_running_loop().create_future())

        async def limited() -> T:
            await turn.future
            return await job

        def ended(_: asyncio.Task[T]) -> None:
            # Not in `limited`: a task that is cancelled before its first step runs none of its code.
            turn.future.cancel()
            self._mark(**{"running" if turn.has_begun else "waiting": -1})
            job.close()
            self._begin()

        self._mark(waiting=1)
        self._turns.append(turn)
        task = asyncio.ensure_future(limited())
        task.add_done_callback(ended)
        self._begin()
        return task

    def _begin(self) -> None:
        """Begin the jobs that have room, in the order of their arrival."""
        while self._turns and self._num_running < self.num_slots + self.num_ahead:
            turn = self._turns.popleft()
            if turn.future.done():  # its task was cancelled, or its loop has ended
                continue
            turn.has_begun = True
            self._mark(waiting=-1, running=1)
            turn.future.set_result(None)


def throttle_of(engine: Any, max_in_flight: int | None) -> Throttle:
    """The throttle of an open engine: `max_in_flight` jobs, or as many as it has slots (`num_slots`) and some more.

    An engine whose number of slots changes has `watch_slots(on_change)`: the throttle follows it.
    """
    num_slots = max_in_flight or getattr(engine, "num_slots", None)
    throttle = Throttle(num_slots or SLOTS, 0 if max_in_flight or not num_slots else -(-num_slots // AHEAD_SHARE))
    if max_in_flight is None and hasattr(engine, "watch_slots"):
        engine.watch_slots(throttle.resize)
    return throttle
