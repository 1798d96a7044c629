"""A second model reads each row and judges it by a rubric, in structured output; it has a pool of its own.

What is asked and what the answers come to is in stages/judging/: a score of a text, a comparison of two in both orders,
or a score of each step of a solution.
"""

import zlib
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.engines.throttle import Throttle
from gristmill.engines.vllm import AskRefused, Engine, EngineDead, Reply
from gristmill.records.spec import literals
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.judging.answers import read_score
from gristmill.stages.judging.modes import MODES, Mode
from gristmill.stages.judging.spec import JudgeSpec

__all__ = ["Judge", "JudgeSpec", "read_score"]


class Judge(Stage):
    """Adds `NAME_...` as its mode says (null where an answer could not be read: a finding, not a failure), and tokens:
    the sum of the row's calls. A call that does not fit into the model's context is one that could not be read.
    """

    kind: ClassVar[str] = "judge"
    Spec: ClassVar[type] = JudgeSpec
    spec: JudgeSpec

    def __init__(self, spec: JudgeSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self.sampling: dict[str, Any] = {"max_tokens": 32, "temperature": 0.0, **spec.sampling}
        self.mode: Mode = MODES[spec.mode](spec)
        self.json_schema = self.mode.json_schema
        self._engine: Engine | None = None
        self._throttle = Throttle(spec.max_in_flight)
        self._done = (0, 0)

    def columns(self) -> list[pa.Field]:
        tokens = [(name, pa.int32()) for name in ("tokens_in", "tokens_out")]
        return [pa.field(f"{self.name}_{name}", kind) for name, kind in [*self.mode.columns(), *tokens]]

    def reads(self) -> list[str]:
        return self.mode.reads()

    @property
    def needs(self) -> Needs:
        return self.spec.needs

    def identity(self) -> dict[str, Any]:
        return {**self.spec.identity(), "sampling": literals(self.sampling)}

    def check(self) -> None:
        self.spec.check()

    @property
    def progress(self) -> tuple[int, int]:
        return self._done

    def open(self) -> None:
        self._engine = self.spec.open_engine(self.sampling, self.json_schema)

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def find(self, rows: pa.RecordBatch) -> Findings:
        raise TypeError("a judge lives in a pool: find_pooled")

    async def find_pooled(self, rows: pa.RecordBatch) -> Findings:
        texts = rows.select(self.reads()).to_pylist()
        asked = [self.mode.calls(row) for row in texts]
        left = [len(calls) for calls in asked]
        self._count(rows=left.count(0))
        seeds = rows.column("seed").to_pylist()
        jobs = [
            self._one(call.prompt, self._seed(seeds[row], call.key), row, left)
            for row, calls in enumerate(asked)
            for call in calls
        ]
        replies = await self._throttle.gather(jobs)
        values, reasons, at = [], [], 0
        for row, calls in zip(texts, asked):
            own, at = replies[at : at + len(calls)], at + len(calls)
            found, reason = self.mode.found(row, own)
            said = [reply for reply in own if reply is not None]
            values.append((*found, sum(r.tokens_in for r in said), sum(r.tokens_out for r in said)))
            reasons.append(reason)
        columns = {f.name: pa.array(column, f.type) for f, column in zip(self.columns(), zip(*values))}
        return Findings(columns, pa.array(reasons, pa.string()))

    def _seed(self, seed: int, key: str) -> int:
        """A call's own, in [0, 2^63), from the row's, the stage's name and the call's key."""
        name = f"{self.name}/{key}" if key else self.name
        return (seed ^ zlib.crc32(name.encode())) & (1 << 63) - 1

    async def _one(self, prompt: str, seed: int, row: int, left: list[int]) -> Reply | None:
        """The reply to one call, None for one that the engine refuses; `left`: how many calls each row waits for."""
        if self._engine is None:
            raise EngineDead("find before open")
        try:
            reply = await self._engine.chat(prompt, self.sampling, seed, self.json_schema)
        except AskRefused:  # longer than the context, most likely
            return None
        finally:
            left[row] -= 1
            self._count(rows=int(left[row] == 0))
        self._count(tokens=reply.tokens_out)
        return reply

    def _count(self, rows: int = 0, tokens: int = 0) -> None:
        self._done = self._done[0] + rows, self._done[1] + tokens
