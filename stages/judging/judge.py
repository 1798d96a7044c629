"""A second model judges each row by a rubric, in structured output. It runs in a pool of its own.

The modes (modes.py) define the calls for a row and what the answers mean: a score of a text, a comparison of two texts
in both orders, or a score of each step of a solution.
"""

import zlib
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import AnswerForm, Reply, ServedEngine
from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.engines.needs import Needs
from gristmill.engines.throttle import Throttle, throttle_of
from gristmill.records.spec import literals
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.judging.answers import read_score
from gristmill.stages.judging.modes import MODES, Mode
from gristmill.stages.judging.spec import JudgeSpec

MAX_TOKENS, MAX_TOKENS_THINKING = 32, 4096  # of a reply: the score, and the thinking before it

__all__ = ["Judge", "JudgeSpec", "read_score"]


class Judge(Stage):
    """Adds the columns of its mode as `NAME_...`, and the tokens of the row's calls.

    An unreadable answer makes its columns null: it is a finding, not a failure. A call that exceeds the model's context
    counts as unreadable, and so does a thinking that has no end. The tokens of the thinking count as `tokens_out`.
    """

    kind: ClassVar[str] = "judge"
    Spec: ClassVar[type] = JudgeSpec
    spec: JudgeSpec

    def __init__(self, spec: JudgeSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        max_tokens = MAX_TOKENS_THINKING if spec.reasoning_parser else MAX_TOKENS
        self.sampling: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0, **spec.sampling}
        self.mode: Mode = MODES[spec.mode](spec)
        self.form = AnswerForm(self.mode.json_schema, reasoning=bool(spec.reasoning_parser))
        self._engine: ServedEngine | None = None
        self._throttle = throttle_of(None, spec.max_in_flight)
        self._totals = (0, 0)

    def columns(self) -> list[pa.Field]:
        tokens = [(name, pa.int32()) for name in ("tokens_in", "tokens_out")]
        return [pa.field(f"{self.name}_{name}", kind) for name, kind in [*self.mode.columns(), *tokens]]

    def reads(self) -> list[str]:
        return self.mode.reads()

    @property
    def needs(self) -> Needs:
        return self.spec.needs

    @property
    def is_repeatable(self) -> bool:
        return self.spec.is_repeatable

    @property
    def engine_key(self) -> str | None:
        return self.spec.engine_key

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), **self.spec.identity(), "sampling": literals(self.sampling)}

    def check(self) -> None:
        self.spec.check()

    @property
    def progress(self) -> tuple[int, int]:
        return self._totals

    @property
    def throttle(self) -> Throttle | None:
        return self._throttle

    def open(self) -> None:
        self._engine = self.spec.open_engine(self.sampling, self.form)
        self._throttle = throttle_of(self._engine, self.spec.max_in_flight)

    async def facts(self) -> dict[str, Any]:
        return await self._engine.facts() if self._engine is not None else {}

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def find(self, rows: pa.RecordBatch) -> Findings:
        raise TypeError("a judge runs in a pool; call find_pooled")

    async def find_pooled(self, rows: pa.RecordBatch) -> Findings:
        texts = rows.select(self.reads()).to_pylist()
        calls_by_row = [self.mode.calls(row) for row in texts]
        pending = [len(calls) for calls in calls_by_row]
        self._count(rows=pending.count(0))
        seeds = rows.column("seed").to_pylist()
        jobs = [
            self._one(call.prompt, self._seed(seeds[row], call.key), row, pending)
            for row, calls in enumerate(calls_by_row)
            for call in calls
        ]
        replies = await self._throttle.gather(jobs)
        values, reasons, start = [], [], 0
        for row, calls in zip(texts, calls_by_row):
            row_replies, start = replies[start : start + len(calls)], start + len(calls)
            findings, reason = self.mode.findings(row, row_replies)
            answers = [reply for reply in row_replies if reply is not None]
            values.append((*findings, sum(r.tokens_in for r in answers), sum(r.tokens_out for r in answers)))
            reasons.append(reason)
        columns = {f.name: pa.array(column, f.type) for f, column in zip(self.columns(), zip(*values))}
        return Findings(columns, pa.array(reasons, pa.string()))

    def _seed(self, seed: int, key: str) -> int:
        """Seed of a call, in [0, 2^63), from the seed of the row, the name of the stage and the key of the call."""
        name = f"{self.name}/{key}" if key else self.name
        return (seed ^ zlib.crc32(name.encode())) & (1 << 63) - 1

    async def _one(self, prompt: str, seed: int, row: int, pending: list[int]) -> Reply | None:
        """The reply to a call; None if the engine refuses it. `pending` counts the open calls of each row."""
        if self._engine is None:
            raise EngineDead("find before open")
        try:
            reply = await self._engine.chat(prompt, self.sampling, seed, self.form)
        except AskRefused:  # usually longer than the context
            return None
        finally:
            pending[row] -= 1
            self._count(rows=int(pending[row] == 0))
        self._count(tokens=reply.tokens_out)
        return reply

    def _count(self, rows: int = 0, tokens: int = 0) -> None:
        self._totals = self._totals[0] + rows, self._totals[1] + tokens
