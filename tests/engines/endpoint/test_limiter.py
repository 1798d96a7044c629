"""Laws of the limits: never more calls at once, calls a minute or tokens a minute than allowed, in any minute."""

import asyncio
import heapq
import itertools
import random
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.endpoint.concurrency import START, Concurrency
from gristmill.engines.endpoint.limiter import Limiter
from gristmill.engines.endpoint.rates import RateWindow


class Jump(selectors.SelectSelector):
    """Waits no time, and adds up what it was to wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "every task waits, and no timer runs"
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer, so that minutes take no time."""

    def __init__(self) -> None:
        self.jump = Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.now


def run(make: Callable[[], Awaitable[None]]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(make())
    finally:
        loop.close()


@settings(max_examples=40, deadline=None)
@given(
    most=st.integers(1, 90),
    per_minute=st.one_of(st.none(), st.integers(1, 2000)),
    tokens_per_minute=st.one_of(st.none(), st.integers(50, 20_000)),
    num_calls=st.integers(1, 150),
    seed=st.integers(0, 1000),
)
def test_no_limit_is_ever_exceeded(
    most: int, per_minute: int | None, tokens_per_minute: int | None, num_calls: int, seed: int
) -> None:
    rng = random.Random(seed)
    begun: list[tuple[float, int]] = []  # (time, tokens)
    in_flight = [0, 0]  # now, most

    async def scenario() -> None:
        limiter = Limiter(most, per_minute, tokens_per_minute)
        loop = asyncio.get_running_loop()

        async def call() -> None:
            reserved = rng.randint(1, 50)
            slot = await limiter.enter(reserved)
            tokens = rng.randint(1, reserved)
            begun.append((loop.time(), tokens))
            in_flight[0] += 1
            in_flight[1] = max(in_flight)
            is_answered = False
            try:
                await asyncio.sleep(rng.expovariate(1.0))
                is_answered = rng.random() < 0.9
                if is_answered:
                    limiter.answer(slot, tokens)
                else:
                    limiter.overload(slot, rng.choice([0.0, 3.0]))
            finally:
                in_flight[0] -= 1
                limiter.leave(slot, tokens if is_answered else None)

        tasks = [asyncio.ensure_future(call()) for _ in range(num_calls)]
        await asyncio.sleep(0.1)
        for task in tasks[:: max(1, num_calls // 3)]:
            task.cancel()  # before it begins, or in the middle
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario)
    assert in_flight[1] <= most
    for start, _ in begun:
        within = [tokens for at, tokens in begun if start <= at < start + 60.0]
        assert per_minute is None or len(within) <= per_minute
        assert tokens_per_minute is None or sum(within) <= tokens_per_minute


def test_a_window_is_used_to_the_full() -> None:
    window, now, times = RateWindow(100, 60.0), 0.0, []
    for _ in range(1000):
        now += window.wait_s(1, now)
        window.take(1, now)
        times.append(now)
    assert times[-1] <= 9.1 * 60.0


def test_a_call_larger_than_the_window_goes_alone() -> None:
    window = RateWindow(100, 60.0)
    assert window.wait_s(500, 0.0) == 0.0
    window.take(500, 0.0)
    assert window.wait_s(1, 1.0) == 59.0


def test_calls_begin_in_the_order_of_their_arrival() -> None:
    order: list[int] = []

    async def scenario() -> None:
        limiter = Limiter(2, 60)

        async def call(number: int) -> None:
            slot = await limiter.enter()
            order.append(number)
            await asyncio.sleep(0.5)
            limiter.leave(slot)

        await asyncio.gather(*map(call, range(30)))

    run(scenario)
    assert order == sorted(order)


def served(
    rate_of: Callable[[int], float], most: int, num_calls: int = 20_000, noise: float = 0.0
) -> tuple[int, float]:
    """(last number of calls at once, seconds of all calls) with a server of `rate_of(number)` calls a second."""
    rng, concurrency, now = random.Random(1), Concurrency(most), 0.0
    for _ in range(num_calls):
        now += rng.uniform(1 - noise, 1 + noise) / rate_of(concurrency.limit)
        concurrency.answer(1.0, concurrency.limit, now)
    return concurrency.limit, now


@pytest.mark.parametrize("noise", [0.0, 0.9])
def test_a_server_that_slows_down_beyond_64_gets_about_64(noise: float) -> None:
    def rate_of(number: int) -> float:
        return 10.0 * number if number <= 64 else 640.0 * 64 / number

    limit, seconds = served(rate_of, 1000, noise=noise)
    assert 40 <= limit <= 96
    assert seconds <= 20_000 / 640.0 / 0.9  # within a tenth of the best fixed number


def test_a_server_that_takes_all_gets_all() -> None:
    limit, _ = served(lambda number: 10.0 * number, 1000)
    assert limit >= 875  # a step below is tried now and then


def test_more_calls_that_bring_nothing_are_taken_back() -> None:
    limit, _ = served(lambda number: min(10.0 * number, 320.0), 1000)
    assert limit <= 2 * START


def test_an_overload_counts_once_for_the_calls_that_it_hit() -> None:
    concurrency = Concurrency(64)
    for _ in range(64):
        concurrency.overload(0, 64)
    assert concurrency.limit == 44
    concurrency.overload(concurrency.epoch, 44)
    assert concurrency.limit == 30
    for _ in itertools.repeat(None, 40):
        concurrency.overload(concurrency.epoch, concurrency.limit)
    assert concurrency.limit == 1


def simulated(
    most: int = 256,
    num_answers: int = 8_000,
    error_share: float = 0.0,
    overload_share: float = 0.0,
    capacity: int = 10**6,
    refuses_from_s: float = 1e9,
    refuses_until_s: float = 1e9,
) -> tuple[float, int, int]:
    """(mean number of calls at once, number at the end, refused calls) of a server that answers in half a second.

    It fails at random, and refuses calls beyond its capacity and all calls between two times.
    """
    rng, concurrency, now = random.Random(3), Concurrency(most), 0.0
    calls: list[tuple[float, int, int, str]] = []
    numbers: list[int] = []
    num_calls = num_answered = num_refused = 0
    while num_answered < num_answers:
        while len(calls) < concurrency.limit:
            num_calls += 1
            is_refused = len(calls) >= capacity or refuses_from_s <= now < refuses_until_s
            is_refused = is_refused or rng.random() < overload_share
            kind = "overload" if is_refused else "fault" if rng.random() < error_share else "answer"
            seconds = rng.uniform(0.4, 0.6) if kind == "answer" else 0.05
            heapq.heappush(calls, (now + seconds, num_calls, concurrency.epoch, kind))
        now, _, epoch, kind = heapq.heappop(calls)
        if kind == "answer":
            num_answered += 1
            concurrency.answer(1.0, len(calls) + 1, now)
            numbers.append(concurrency.limit)
        elif kind == "overload":
            num_refused += 1
            concurrency.overload(epoch, len(calls) + 1)
        else:
            concurrency.fault(epoch, len(calls) + 1)
    return sum(numbers) / len(numbers), concurrency.limit, num_refused


@pytest.mark.parametrize("error_share", [0.0, 0.005, 0.03])
def test_a_few_errors_are_no_overload(error_share: float) -> None:
    assert simulated(error_share=error_share)[0] >= 0.9 * 256


def test_many_errors_are_an_overload() -> None:
    assert simulated(error_share=0.3, num_answers=2_000)[1] < 64


def test_rare_overloads_leave_most_of_the_number() -> None:
    assert simulated(overload_share=0.001)[0] >= 0.7 * 256


@pytest.mark.parametrize("capacity", [4, 32, 200])
def test_a_server_that_refuses_calls_beyond_its_capacity_is_filled(capacity: int) -> None:
    mean, _, num_refused = simulated(capacity=capacity, num_answers=40 * capacity + 2_000)
    assert 0.75 * capacity <= mean <= 1.15 * capacity + 2
    assert num_refused <= 0.2 * (40 * capacity + 2_000)


def test_the_number_is_back_soon_after_an_outage() -> None:
    assert simulated(refuses_from_s=5.0, refuses_until_s=8.0)[1] >= 200
