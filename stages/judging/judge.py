"""A second model judges each row by a rubric, in structured output. It runs in a pool of its own.

The modes (modes.py) define the calls for a row and what the answers mean: a score of a text, a comparison of two texts
in both orders, or a score of each step of a solution.
"""

import zlib
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import AnswerForm, ChatEngine, Reply, ServedEngine
from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.engines.needs import Needs
from gristmill.engines.recorded import RecordedEngine, row_engines
from gristmill.engines.throttle import Throttle, throttle_of
from gristmill.records.schema import cost_field
from gristmill.records.spec import literals
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.judging.answers import read_score
from gristmill.stages.judging.modes import MODES, Mode
from gristmill.stages.judging.spec import JudgeSpec
from gristmill.stages.trajectory.messages import is_messages, trajectory_text

MAX_TOKENS, MAX_TOKENS_THINKING = 32, 4096  # of a reply: the score, and the thinking before it

__all__ = ["Judge", "JudgeSpec", "read_score"]


class Judge(Stage):
    """Adds the columns of its mode as `NAME_...`, and the tokens of the row's calls.

    Columns of messages are read as a text with speakers, tool calls and results: so it judges whole trajectories.

    An unreadable answer makes its columns null: it is a finding, not a failure. A call that exceeds the model's context
    counts as unreadable, and so does a thinking that has no end. The tokens of the thinking count as `tokens_out`.
    """

    kind: ClassVar[str] = "judge"
    Spec: ClassVar[type] = JudgeSpec
    spec: JudgeSpec

    def __init__(self, spec: JudgeSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self.service = spec.service
        parser = getattr(self.service, "reasoning_parser", None)
        max_tokens = MAX_TOKENS_THINKING if parser else MAX_TOKENS
        self.sampling: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0, **self.service.sampling}
        self.mode: Mode = MODES[spec.mode](spec)
        self.form = AnswerForm(self.mode.json_schema, reasoning=bool(parser))
        self._engine: ServedEngine | RecordedEngine | None = None
        self._throttle = throttle_of(None, self.service.fixed_slots)
        self._totals = (0, 0)

    def columns(self) -> list[pa.Field]:
        tokens = [(name, pa.int32()) for name in ("tokens_in", "tokens_out")]
        fields = [pa.field(f"{self.name}_{name}", kind) for name, kind in [*self.mode.columns(), *tokens]]
        return [*fields, *([cost_field(f"{self.name}_cost")] if self.is_paid else [])]

    def reads(self) -> list[str]:
        return self.mode.reads()

    def refuses(self, field: pa.Field) -> str | None:
        return None if is_messages(field.type) else super().refuses(field)

    @property
    def needs(self) -> Needs:
        return self.service.needs

    @property
    def is_repeatable(self) -> bool:
        return self.service.is_repeatable

    @property
    def is_paid(self) -> bool:
        return self.service.is_paid

    @property
    def paid(self) -> float:
        return self._engine.paid if isinstance(self._engine, RecordedEngine) else 0.0

    @property
    def engine_key(self) -> str | None:
        return self.service.engine_key

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), **self.service.identity(), "sampling": literals(self.sampling)}

    def check(self) -> None:
        self.service.check()

    @property
    def progress(self) -> tuple[int, int]:
        return self._totals

    @property
    def throttle(self) -> Throttle | None:
        return self._throttle

    def open(self) -> None:
        engine = self.service.open_engine(self.sampling, self.form)
        self._engine = RecordedEngine(engine, self.answers, self.name) if self.is_paid else engine
        self._throttle = throttle_of(self._engine, self.service.fixed_slots)

    async def facts(self) -> dict[str, Any]:
        return await self._engine.facts() if self._engine is not None else {}

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def find(self, rows: pa.RecordBatch) -> Findings:
        raise TypeError("a judge runs in a pool; call find_pooled")

    async def find_pooled(self, rows: pa.RecordBatch) -> Findings:
        texts = [_as_texts(row) for row in rows.select(self.reads()).to_pylist()]
        calls_by_row = [self.mode.calls(row) for row in texts]
        pending = [len(calls) for calls in calls_by_row]
        self._count(rows=pending.count(0))
        seeds, costs = rows.column("seed").to_pylist(), [0.0] * rows.num_rows
        async with row_engines(self._engine, rows) as engines:
            jobs = [
                self._one(engines[row], call.prompt, self._seed(seeds[row], call.key), row, pending, costs)
                for row, calls in enumerate(calls_by_row)
                for call in calls
            ]
            replies = await self._throttle.gather(jobs)
        values, reasons, start = [], [], 0
        for row, calls, cost in zip(texts, calls_by_row, costs):
            row_replies, start = replies[start : start + len(calls)], start + len(calls)
            findings, reason = self.mode.findings(row, row_replies)
            answers = [reply for reply in row_replies if reply is not None]
            tokens = sum(r.tokens_in for r in answers), sum(r.tokens_out for r in answers)
            values.append((*findings, *tokens, *([cost] if self.is_paid else [])))
            reasons.append(reason)
        columns = {f.name: pa.array(column, f.type) for f, column in zip(self.columns(), zip(*values))}
        return Findings(columns, pa.array(reasons, pa.string()))

    def _seed(self, seed: int, key: str) -> int:
        """Seed of a call, in [0, 2^63), from the seed of the row, the name of the stage and the key of the call."""
        name = f"{self.name}/{key}" if key else self.name
        return (seed ^ zlib.crc32(name.encode())) & (1 << 63) - 1

    async def _one(
        self, engine: ChatEngine | None, prompt: str, seed: int, row: int, pending: list[int], costs: list[float]
    ) -> Reply | None:
        """The reply to a call; None if the engine refuses it.

        `pending` counts the open calls of each row, `costs` what its calls cost.
        """
        if engine is None:
            raise EngineDead("find before open")
        try:
            reply = await engine.chat(prompt, self.sampling, seed, self.form)
        except AskRefused as refused:  # usually longer than the context
            costs[row] += refused.cost
            return None
        finally:
            pending[row] -= 1
            self._count(rows=int(pending[row] == 0))
        costs[row] += reply.cost
        self._count(tokens=reply.tokens_out)
        return reply

    def _count(self, rows: int = 0, tokens: int = 0) -> None:
        self._totals = self._totals[0] + rows, self._totals[1] + tokens


def _as_texts(row: dict[str, Any]) -> dict[str, str | None]:
    """The columns of a row as texts: messages with their tool calls and results become a text with speakers."""
    return {name: trajectory_text(value) if isinstance(value, list) else value for name, value in row.items()}
