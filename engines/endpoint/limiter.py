"""Lets calls to an endpoint begin: in the order of their arrival, within the limits on calls at once and a minute."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gristmill.engines.endpoint.concurrency import Concurrency
from gristmill.engines.endpoint.rates import RateWindow, calls_window


@dataclass(eq=False, slots=True)
class Slot:
    """A call that has begun."""

    epoch: int
    tokens: list[float] | None  # its entry in the window of tokens


class Limiter:
    """One for all calls of a replica, on one event loop.

    `on_change` is called with (calls at once at most, calls in flight, calls that wait) whenever one of them changes.
    """

    def __init__(
        self,
        most: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        adapts: bool = True,
    ) -> None:
        """`adapts`: whether the number of calls at once follows the server; else it is `most`."""
        self.concurrency = Concurrency(most, adapts)
        self.num_in_flight = 0
        self.on_change: Callable[[int, int, int], None] = _nothing
        self._calls = calls_window(requests_per_minute) if requests_per_minute else None
        self._tokens = RateWindow(tokens_per_minute) if tokens_per_minute else None
        self._waiting: deque[tuple[asyncio.Future[Slot], float]] = deque()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def counts_tokens(self) -> bool:
        return self._tokens is not None

    async def enter(self, tokens: float = 0.0) -> Slot:
        """Wait until a call may begin. `tokens`: the most that it can take."""
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, tokens))
        self._start()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(future.result())
            self._start()
            raise

    def leave(self, slot: Slot, tokens: float | None = None) -> None:
        """End a call. `tokens`: what it has taken, if that is known."""
        self.num_in_flight -= 1
        if self._tokens and slot.tokens and tokens is not None:
            self._tokens.correct(slot.tokens, tokens, _now())
        self._start()

    def answer(self, slot: Slot, amount: float) -> None:
        """Note an answer, before the call leaves. `amount`: its tokens."""
        self.concurrency.answer(amount, self.num_in_flight, _now())

    def overload(self, slot: Slot, retry_after_s: float = 0.0) -> None:
        """Note an error that means overload, before the call leaves. No call begins within `retry_after_s`."""
        self.concurrency.overload(slot.epoch, self.num_in_flight)
        if retry_after_s > 0:
            self._paused_until = max(self._paused_until, _now() + retry_after_s)

    def fault(self, slot: Slot) -> None:
        """Note an error that need not mean overload, before the call leaves."""
        self.concurrency.fault(slot.epoch, self.num_in_flight)

    def _start(self) -> None:
        """Begin the calls that may begin, and tell the new numbers."""
        self._begin()
        self.on_change(self.concurrency.limit, self.num_in_flight, len(self._waiting))

    def _begin(self) -> None:
        """Begin the calls that may begin; if only time holds the next back, come again."""
        while self._waiting and self.num_in_flight < self.concurrency.limit:
            future, tokens = self._waiting[0]
            if future.done():  # cancelled
                self._waiting.popleft()
                continue
            now = _now()
            wait_s = self._paused_until - now
            if self._calls:
                wait_s = max(wait_s, self._calls.wait_s(1, now))
            if self._tokens:
                wait_s = max(wait_s, self._tokens.wait_s(tokens, now))
            if wait_s > 0:
                self._come_again(wait_s)
                return
            self._waiting.popleft()
            if self._calls:
                self._calls.take(1, now)
            self.num_in_flight += 1
            future.set_result(Slot(self.concurrency.epoch, self._tokens.take(tokens, now) if self._tokens else None))

    def _come_again(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._start)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _nothing(*_: int) -> None:
    """Nobody needs to know."""
