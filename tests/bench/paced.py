"""A generator and a stage that take as long as a GPU would: each ask its own time, many at once. No text is thought of.

Every process writes the begin and the end of its asks to a file of its own, as pairs of float64 in monotonic seconds,
and a byte for each ask that begins to another.
"""

import asyncio
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Messages, Reply
from gristmill.engines.needs import Needs
from gristmill.engines.throttle import Throttle, throttle_of
from gristmill.generators.text.contract import Method
from gristmill.generators.text.generator import TextGenerator
from gristmill.stages.contract import Findings, Stage


@dataclass(frozen=True)
class Pace:
    """Times are lognormal with the mean `mean_s` before they are cut at `cut` means; ask i always takes the same."""

    log: str
    mean_s: float = 1.0
    sigma: float = 1.0
    cut: float = 6.0
    num_slots: int = 256
    num_calls: int = 1  # of an ask, one after another
    slow: float = 1.0  # times as long in the first process that opens
    num_cpus: float = 0.0
    cut_off: float = 0.0  # share of the answers that the stage `finish` rejects

    def seconds(self, seed: int) -> float:
        normal = np.random.default_rng(seed).standard_normal()
        return self.mean_s * min(self.cut, float(np.exp(self.sigma * normal - self.sigma**2 / 2)))


class PacedEngine:
    """Works on `num_slots` calls at once; the others wait."""

    synchronous = False

    def __init__(self, pace: Pace) -> None:
        self.pace, self.num_slots = pace, pace.num_slots
        self._slots = asyncio.Semaphore(pace.num_slots)
        folder = Path(pace.log)
        try:
            (folder / "first").touch(exist_ok=False)
            self._slow = pace.slow
        except FileExistsError:
            self._slow = 1.0
        self._begun = open(folder / f"{os.getpid()}.begun", "wb", buffering=0)  # noqa: SIM115 - a byte for each call
        self._log = open(folder / f"{os.getpid()}.times", "wb", buffering=0)  # noqa: SIM115 - open as long as the engine

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        for call in range(self.pace.num_calls):
            async with self._slots:
                begin, took = monotonic(), self._slow * self.pace.seconds(seed + call)
                self._begun.write(b".")
                await asyncio.sleep(took)
                self._log.write(struct.pack("dd", begin, monotonic()))
        finish = "length" if seed % 1000 < 1000 * self.pace.cut_off else "stop"
        return Reply(f"answer {seed}", finish, 10, round(100 * took / self.pace.mean_s) + 1)


class Paced(TextGenerator):
    """A method on a `PacedEngine`."""

    kind: ClassVar[str] = "paced"
    Spec: ClassVar[type] = Pace

    def __init__(self, spec: Pace, method: Method) -> None:
        super().__init__(spec, method)

    @property
    def needs(self) -> Needs:
        return Needs(num_cpus=self.spec.num_cpus, pooled=True)

    def open_engine(self) -> ChatEngine:
        return PacedEngine(self.spec)


class PacedJudge(Stage):
    """A stage with a `PacedEngine`."""

    kind: ClassVar[str] = "paced_judge"
    Spec: ClassVar[type] = Pace

    @property
    def needs(self) -> Needs:
        return Needs(num_cpus=self.spec.num_cpus, pooled=True)

    def open(self) -> None:
        self.engine = PacedEngine(self.spec)
        self._throttle = throttle_of(self.engine, None)

    @property
    def throttle(self) -> Throttle | None:
        return self._throttle

    def find(self, rows: pa.RecordBatch) -> Findings:
        raise TypeError("in a pool only")

    async def find_pooled(self, rows: pa.RecordBatch) -> Findings:
        await self._throttle.gather([self.engine.chat("", {}, seed) for seed in rows.column("seed").to_pylist()])
        return Findings({}, pa.nulls(rows.num_rows, pa.string()))
