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

    num_slots: jobs that run at once; calls, where the engine limits its calls by itself. busy_s: seconds of busy slots,
    summed over the slots. empty_s: seconds in which a slot was free and none waited for it. open_s: seconds since the
    start of the count. slot_s: the same, summed over slots, whose number may change.
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

    An engine that limits its calls by itself reports them by `note_calls`. Then the slots are those of calls, since a
    job may do other things between its calls, such as run a tool, and the load is that of the calls.
    """

    def __init__(self, num_slots: int, num_ahead: int = 0) -> None:
        self.num_slots, self.num_ahead = num_slots, num_ahead
        self._num_waiting = self._num_running = self._num_begun = 0
        self._calls: tuple[int, int, int] | None = None  # (at once at most, in flight, that wait), as the engine says
        self._busy_s = self._empty_s = self._slot_s = 0.0
        self._since = self._opened = time.monotonic()
        self._turns: deque[Turn] = deque()  # of the jobs that wait

    @property
    def load(self) -> Load:
        self._mark()
        num_slots, num_running, num_waiting = self._slots
        seconds = self._busy_s, self._empty_s, self._since - self._opened, self._slot_s
        return Load(num_slots, num_waiting, num_running, self._num_begun, *seconds)

    @property
    def _slots(self) -> tuple[int, int, int]:
        """(slots, those that are busy, jobs or calls that wait for one)."""
        if self._calls is None:
            return self.num_slots, self._num_running, self._num_waiting
        num_slots, num_in_flight, num_waiting = self._calls
        return num_slots, num_in_flight, num_waiting + self._num_waiting

    def resize(self, num_slots: int) -> None:
        """Change the number of slots. Jobs that run go on; with fewer slots none begins until enough have ended."""
        self._mark()
        self.num_slots = num_slots
        self._begin()

    def note_calls(self, num_slots: int, num_in_flight: int, num_waiting: int) -> None:
        """Note the calls of an engine that limits them: at most `num_slots` at once."""
        self._mark()
        self._calls = num_slots, num_in_flight, num_waiting

    def _mark(self, waiting: int = 0, running: int = 0) -> None:
        """Count the time since the last change, then change the numbers."""
        now = time.monotonic()
        num_slots, num_running, num_waiting = self._slots
        self._busy_s += min(num_running, num_slots) * (now - self._since)
        self._slot_s += num_slots * (now - self._since)
        if not num_waiting and num_running < num_slots:
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

    An engine that limits its calls by itself has `most_slots`, the most that it ever sends at once, and
    `watch_slots(on_change)`, see Throttle.note_calls: it gets so many jobs, even while it sends fewer calls.
    """
    if max_in_flight is None and hasattr(engine, "watch_slots"):
        throttle = Throttle(engine.most_slots)
        throttle.note_calls(engine.num_slots, 0, 0)
        engine.watch_slots(throttle.note_calls)
        return throttle
    num_slots = max_in_flight or getattr(engine, "num_slots", None)
    return Throttle(num_slots or SLOTS, 0 if max_in_flight or not num_slots else -(-num_slots // AHEAD_SHARE))
