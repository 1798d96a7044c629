"""Limits concurrent engine calls: queued requests hold memory and are lost if the engine dies."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Throttle:
    """Runs at most `max_in_flight` jobs at once, over all lots of a replica."""

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self._semaphore: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def gather(self, jobs: Sequence[Coroutine[Any, Any, T] | None]) -> list[T | None]:
        """The results of the jobs in their order, None for None. When a job raises, the others are cancelled."""
        loop = asyncio.get_running_loop()
        if self._semaphore is None or self._loop is not loop:
            self._semaphore, self._loop = asyncio.Semaphore(self.max_in_flight), loop
        semaphore = self._semaphore

        async def limited(job: Coroutine[Any, Any, T]) -> T:
            try:
                async with semaphore:
                    return await job
            finally:
                job.close()  # a job that was cancelled before its start

        tasks = [asyncio.ensure_future(limited(job)) if job is not None else None for job in jobs]
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
