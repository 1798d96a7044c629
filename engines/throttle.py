"""Many calls of an engine at once, but not all: what lies in the engine's queue costs memory and is lost with it."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Throttle:
    """Lets `max_in_flight` jobs run at once, over all lots of a replica."""

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self._semaphore: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def gather(self, jobs: Sequence[Coroutine[Any, Any, T] | None]) -> list[T | None]:
        """The jobs' answers in their order, None for None. When one raises, the others are called off."""
        loop = asyncio.get_running_loop()
        if self._semaphore is None or self._loop is not loop:
            self._semaphore, self._loop = asyncio.Semaphore(self.max_in_flight), loop
        semaphore = self._semaphore

        async def gated(job: Coroutine[Any, Any, T]) -> T:
            try:
                async with semaphore:
                    return await job
            finally:
                job.close()  # a job cancelled at the gate has never begun

        tasks = [asyncio.ensure_future(gated(job)) if job is not None else None for job in jobs]
        living = [task for task in tasks if task is not None]
        try:
            await asyncio.gather(*living)
        except BaseException:
            # The engine has died, or the lot was called off: nothing of it may go on using the engine.
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)
            raise
        return [task.result() if task is not None else None for task in tasks]
