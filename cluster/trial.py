"""One engine on the cluster for a while: started, measured on some asks, ended (`gristmill tune`)."""

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.errors import one_line
from gristmill.cluster.inputs import open_unchanged
from gristmill.cluster.pools.replica import placement_options
from gristmill.cluster.room.nodes import usable_nodes
from gristmill.engines.sizes import EngineSizes, sizes_of
from gristmill.generators.timed import REFUSED, TimedTeacher, digest, full_rate
from gristmill.records.errors import UserError
from gristmill.records.lots import SourceLot, ask_batch

POLL_S, CLOSE_TIMEOUT_S = 0.3, 20.0
GIB = 2**30
# A line of a traceback that names an error, perhaps behind the name of a process.
ERROR_LINE = re.compile(r"\b(\w*(?:Error|Exception)): (\S.*)$")
WRAPPER = "Engine core initialization failed"  # what vLLM raises beside the real reason


@dataclass(frozen=True)
class Device:
    """The resources of the node with the most GPUs, then the most cores."""

    num_cpus: int
    num_gpus: int
    memory_gb: float


@dataclass
class Measurement:
    """What an engine did with the asks of a trial."""

    tokens_per_s: float  # while its batch was full
    rows_per_s: float
    run_s: float
    rows: dict[str, str] = field(default_factory=dict)  # digest of each finished row by id
    num_refused: int = 0
    refusal: str = ""  # the first reason of the engine
    tokens_in: float = 0.0  # of a finished row, on average
    longest: int = 0  # tokens of the longest finished row, prompt and answer
    is_cut: bool = False  # its time was over before every ask was answered


class TrialFailed(Exception):
    """A trial has no result; the message is one line."""


class Stopped(Exception):
    """The user has stopped the trial."""


def device() -> Device:
    """The largest live node of the cluster."""
    nodes = usable_nodes().values()
    best = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)), default={})
    return Device(int(best.get("CPU", 1)), int(best.get("GPU", 0)), best.get("memory", 0.0) / GIB)


@ray.remote
class TrialActor:
    """A teacher in a process of its own."""

    def __init__(self, teacher: TimedTeacher) -> None:
        self.teacher = teacher

    async def open(self) -> EngineSizes:
        with _captured() as text:
            try:
                open_unchanged(self.teacher)
            except UserError as error:
                raise TrialFailed(str(error)) from None
            except Exception as error:  # noqa: BLE001 - whatever an engine raises at its start is the result
                raise TrialFailed(reason(text(), error)) from None
        assert self.teacher.timed is not None
        return sizes_of(self.teacher.timed.engine)

    async def measure(self, lots: Sequence[SourceLot], num_asks: int, limit_s: float) -> Measurement:
        """Answer the first `num_asks` asks of `lots`, which all begin at once, as far as `limit_s` seconds allow."""
        teacher = self.teacher
        jobs, left = [], num_asks
        for lot in lots:
            batch = ask_batch(lot)
            jobs.append(teacher.make(batch.slice(0, min(left, batch.num_rows))))
            left -= batch.num_rows
        begin = time.monotonic()
        is_cut = False
        try:
            await asyncio.wait_for(asyncio.gather(*jobs), limit_s)
        except TimeoutError:
            is_cut = True
        end = time.monotonic()
        timed, rows = teacher.timed, teacher.rows
        assert timed is not None
        rate = full_rate(timed.calls, end)
        answered = [row for row in rows.values() if row.reason is None]
        tokens_out = sum(row.tokens_out for row in answered)
        return Measurement(
            rate,
            rate * len(answered) / tokens_out if tokens_out else 0.0,
            end - begin,
            {row_id: digest(row) for row_id, row in rows.items()},
            sum(row.reason == REFUSED for row in rows.values()),
            timed.refusal,
            sum(row.tokens_in for row in answered) / max(1, len(answered)),
            max((row.tokens_in + row.tokens_out for row in answered), default=0),
            is_cut,
        )

    async def num_done(self) -> int:
        return len(self.teacher.rows)

    async def close(self) -> None:
        self.teacher.close()


class EngineTrial:
    """A context with one engine. `is_stopped` is asked a few times a second; a stop raises Stopped."""

    def __init__(self, teacher: TimedTeacher, is_stopped: Callable[[], bool], show: Callable[[str, int], None]) -> None:
        """`show` gets what the trial does ("starting", "measuring") and the number of answered asks."""
        self.teacher, self.is_stopped, self.show = teacher, is_stopped, show
        self._is_starting = False

    def __enter__(self) -> "EngineTrial":
        options, self._group = placement_options(self.teacher.needs)
        self._actor: Any = TrialActor.options(**options).remote(self.teacher)  # type: ignore[attr-defined]
        return self

    def __exit__(self, *error: Any) -> None:
        """End the engine, so that the device is free when this returns."""
        if not self._is_starting:  # its process hears nothing while it starts; the engine's guard ends the others
            with suppress(RayError):
                ray.wait([self._actor.close.remote()], timeout=CLOSE_TIMEOUT_S)
        ray.kill(self._actor)
        if self._group is not None:
            remove_placement_group(self._group)

    def open(self, limit_s: float) -> EngineSizes:
        """Start the engine. Raises TrialFailed when it does not start within `limit_s` seconds."""
        self._is_starting = True
        sizes: EngineSizes = self._wait(self._actor.open.remote(), limit_s, "starting")
        return sizes

    def measure(self, lots: Sequence[SourceLot], num_asks: int, limit_s: float) -> Measurement:
        """Answer asks for at most `limit_s` seconds. Raises TrialFailed when the engine dies, or answers nothing."""
        ref = self._actor.measure.remote(lots, num_asks, limit_s)
        result: Measurement = self._wait(ref, limit_s + CLOSE_TIMEOUT_S, "measuring")
        if result.num_refused:
            why = one_line(Exception(result.refusal))
            raise TrialFailed(f"vLLM refuses {result.num_refused} of {num_asks} asks: {why}")
        if not result.tokens_per_s:
            raise TrialFailed(f"no ask was answered within {result.run_s:.0f} s")
        return result

    def _wait(self, ref: Any, limit_s: float, phase: str) -> Any:
        end = time.monotonic() + limit_s
        while not ray.wait([ref], timeout=POLL_S)[0]:
            if self.is_stopped():
                raise Stopped
            if time.monotonic() > end:
                raise TrialFailed(f"{phase} took more than {limit_s:.0f} s")
            self.show(phase, self._num_done() if phase == "measuring" else 0)
        self._is_starting = False
        try:
            return ray.get(ref)
        except RayTaskError as error:
            cause = error.cause
            raise TrialFailed(str(cause) if isinstance(cause, TrialFailed) else one_line(cause)) from None
        except RayError as error:
            raise TrialFailed(f"its process died: {one_line(error)}") from None

    def _num_done(self) -> int:
        try:
            number: int = ray.get(self._actor.num_done.remote(), timeout=POLL_S)
        except RayError:  # it is busy, or gone: the call that is waited for says which
            return 0
        return number


def reason(text: str, error: BaseException) -> str:
    """Why an engine did not start, in one line: the last error in what its processes wrote, else `error`.

    vLLM raises "see root cause above" for an error in another process.
    """
    causes = [match for line in text.splitlines() if (match := ERROR_LINE.search(line)) and WRAPPER not in line]
    if WRAPPER in str(error) and causes:
        return one_line(Exception(f"{causes[-1][1]}: {causes[-1][2]}"))
    return one_line(Exception(f"{type(error).__name__}: {error}"))


@contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """What this process and its children write during the block goes to a file; yields a reader of it."""
    with tempfile.TemporaryFile("w+b") as file:
        before = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)

        def read() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield read
        finally:
            for number, old in zip((1, 2), before):
                os.dup2(old, number)
                os.close(old)
