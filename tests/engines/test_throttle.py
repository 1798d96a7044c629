"""The throttle of an engine: its bound, its order and its counts."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.throttle import Load, Throttle, throttle_of


class Bench:
    """Jobs that run until they are let go; notes the order of their begins and the most at once."""

    def __init__(self, num: int) -> None:
        self.begun: list[int] = []
        self.running = self.most = 0
        self.gates = [asyncio.Event() for _ in range(num)]

    async def job(self, number: int) -> int:
        self.begun.append(number)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gates[number].wait()
        finally:
            self.running -= 1
        return number

    def jobs(self) -> list[Coroutine[Any, Any, int]]:
        return [self.job(number) for number in range(len(self.gates))]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@given(num=st.integers(1, 12), num_slots=st.integers(1, 5), num_ahead=st.integers(0, 3), data=st.data())
def test_jobs_begin_in_order_and_never_more_than_allowed(
    num: int, num_slots: int, num_ahead: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(num)))
    ends = data.draw(st.permutations(range(num)))

    async def run() -> None:
        bench, throttle = Bench(num), Throttle(num_slots, num_ahead)
        lot = asyncio.ensure_future(throttle.gather(bench.jobs(), order))
        await settle()
        for number in ends:
            load = throttle.load
            assert load.num_running == bench.running <= num_slots + num_ahead
            assert load.num_waiting == num - load.num_begun == num - len(bench.begun)
            bench.gates[number].set()
            await settle()
        assert await lot == list(range(num))
        assert bench.begun == list(order)
        assert (throttle.load.num_waiting, throttle.load.num_running) == (0, 0)

    asyncio.run(run())


def test_dead_rows_are_no_jobs() -> None:
    async def run() -> list[int | None]:
        bench = Bench(2)
        for gate in bench.gates:
            gate.set()
        return await Throttle(1).gather([bench.job(0), None, bench.job(1)])

    assert asyncio.run(run()) == [0, None, 1]


@pytest.mark.parametrize("when", ["before its first step", "while it waits", "while it runs"])
def test_a_cancelled_lot_leaves_no_count(when: str) -> None:
    async def run() -> Load:
        bench, throttle = Bench(4), Throttle(2)
        lot = asyncio.ensure_future(throttle.gather(bench.jobs()))
        if when != "before its first step":
            await settle()
        if when == "while it waits":
            bench.gates[0].set()
            await settle()
        lot.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lot
        await settle()
        return throttle.load

    load = asyncio.run(run())
    assert (load.num_waiting, load.num_running) == (0, 0)


def test_a_failure_cancels_the_rest_of_its_lot_alone() -> None:
    async def fail() -> int:
        raise RuntimeError("the engine is dead")

    async def run() -> Load:
        bench, throttle = Bench(3), Throttle(2)
        other = asyncio.ensure_future(throttle.gather([bench.job(0)]))
        await settle()
        bench.gates[1].set()
        with pytest.raises(RuntimeError, match="dead"):
            await throttle.gather([bench.job(1), fail(), bench.job(2)])
        await settle()
        assert throttle.load.num_running == 1  # of the other lot
        bench.gates[0].set()
        assert await other == [0]
        return throttle.load

    load = asyncio.run(run())
    assert (load.num_waiting, load.num_running) == (0, 0)


def test_seconds_of_busy_slots_and_of_an_empty_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("gristmill.engines.throttle.time.monotonic", lambda: clock[0])

    async def run() -> Load:
        bench, throttle = Bench(3), Throttle(2)
        clock[0] += 5.0  # open and idle
        lot = asyncio.ensure_future(throttle.gather(bench.jobs()))
        await settle()
        clock[0] += 10.0  # two run, one waits
        bench.gates[0].set()
        await settle()
        clock[0] += 3.0  # two run, none waits
        bench.gates[1].set()
        await settle()
        clock[0] += 7.0  # one runs, a slot is free
        bench.gates[2].set()
        await lot
        return throttle.load

    load = asyncio.run(run())
    assert load.busy_s == 2 * 10 + 2 * 3 + 7
    assert load.empty_s == 5 + 7
    assert load.open_s == 25


def test_an_engines_own_slots_decide() -> None:
    class Own:
        num_slots = 100

    assert (throttle_of(Own(), None).num_slots, throttle_of(Own(), None).num_ahead) == (100, 13)
    assert (throttle_of(Own(), 7).num_slots, throttle_of(Own(), 7).num_ahead) == (7, 0)
    assert (throttle_of(None, None).num_slots, throttle_of(None, None).num_ahead) == (256, 0)


def test_an_engine_that_limits_its_calls_gets_as_many_jobs_as_it_ever_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may run a tool between its calls; the seconds are those of the calls."""
    clock = [0.0]
    monkeypatch.setattr("gristmill.engines.throttle.time.monotonic", lambda: clock[0])

    class Limited:
        num_slots, most_slots = 2, 10

        def watch_slots(self, on_change: Callable[[int, int, int], None]) -> None:
            self.note = on_change

    async def run() -> Load:
        engine, bench = Limited(), Bench(12)
        throttle = throttle_of(engine, None)
        lot = asyncio.ensure_future(throttle.gather(bench.jobs()))
        await settle()
        assert bench.running == 10
        engine.note(2, 2, 8)
        assert (throttle.load.num_slots, throttle.load.num_running, throttle.load.num_waiting) == (2, 2, 10)
        clock[0] += 5.0  # both slots are busy
        engine.note(4, 1, 0)  # the others run their tools
        clock[0] += 3.0
        for gate in bench.gates:
            gate.set()
        await lot
        engine.note(4, 0, 0)
        clock[0] += 1.0  # nothing to do
        return throttle.load

    load = asyncio.run(run())
    assert (load.busy_s, load.slot_s, load.empty_s) == (2 * 5 + 3, 2 * 5 + 4 * 4, 1)
    assert load.num_begun == 12


@given(changes=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_number_of_slots_may_change(changes: list[tuple[int, int]]) -> None:
    """`changes`: (number of slots from now on, jobs that end then)."""

    async def run() -> None:
        num = 24
        bench, throttle = Bench(num), Throttle(3)
        lot = asyncio.ensure_future(throttle.gather(bench.jobs()))
        await settle()
        num_ended = 0
        for num_slots, ends in changes:
            before = bench.running
            throttle.resize(num_slots)
            await settle()
            assert bench.running == max(before, min(num_slots, num - num_ended))  # no job is stopped
            for _ in range(min(ends, bench.running)):
                bench.gates[num_ended].set()
                num_ended += 1
                await settle()
            assert bench.running <= max(num_slots, before - ends)
            assert throttle.load.num_slots == num_slots
        for gate in bench.gates:
            gate.set()
        assert await lot == list(range(num))
        assert bench.begun == list(range(num))
        load = throttle.load
        assert 0.0 <= load.busy_s <= load.slot_s <= 6 * load.open_s + 1e-9

    asyncio.run(run())
