"""A teacher on the cluster for a while, measured on some asks (`gristmill tune`)."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ray

from gristmill.cluster.errors import one_line
from gristmill.cluster.room.nodes import usable_nodes
from gristmill.cluster.single_engine import CLOSE_TIMEOUT_S, EngineProcess, SingleEngine, Stopped, TrialFailed, reason
from gristmill.engines.sizes import EngineSizes, sizes_of
from gristmill.generators.timed import REFUSED, TimedTeacher, digest, full_rate
from gristmill.records.lots import SourceLot, ask_batch

__all__ = ["Device", "EngineTrial", "Measurement", "Stopped", "TrialFailed", "device", "reason"]

GIB = 2**30


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


def device() -> Device:
    """The largest live node of the cluster."""
    nodes = usable_nodes().values()
    best = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)), default={})
    return Device(int(best.get("CPU", 1)), int(best.get("GPU", 0)), best.get("memory", 0.0) / GIB)


class TrialProcess(EngineProcess):
    """A teacher in a process of its own."""

    worker: TimedTeacher

    async def open(self, secrets: Mapping[str, str]) -> EngineSizes:
        await super().open(secrets)
        assert self.worker.timed is not None
        return sizes_of(self.worker.timed.engine)

    async def measure(self, lots: Sequence[SourceLot], num_asks: int, limit_s: float) -> Measurement:
        """Answer the first `num_asks` asks of `lots`, which all begin at once, as far as `limit_s` seconds allow."""
        teacher = self.worker
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
        return len(self.worker.rows)


class EngineTrial(SingleEngine):
    """A context with the engine of a teacher."""

    process = ray.remote(TrialProcess)

    def measure(self, lots: Sequence[SourceLot], num_asks: int, limit_s: float) -> Measurement:
        """Answer asks for at most `limit_s` seconds. Raises TrialFailed when the engine dies, or answers nothing."""
        ref = self._actor.measure.remote(lots, num_asks, limit_s)
        result: Measurement = self.wait(ref, limit_s + CLOSE_TIMEOUT_S, "measuring")
        if result.num_refused:
            why = one_line(Exception(result.refusal))
            raise TrialFailed(f"vLLM refuses {result.num_refused} of {num_asks} asks: {why}")
        if not result.tokens_per_s:
            raise TrialFailed(f"no ask was answered within {result.run_s:.0f} s")
        return result
