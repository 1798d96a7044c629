"""A second model reads each row and scores it against a rubric, in structured output; it has a pool of its own."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from records.spec import literals
from stages.contract import Found, Stage
from stages.engine import AskRefused, Engine, EngineDead
from stages.gate import Gate
from stages.needs import Needs
from stages.served import ModelSpec

PROMPT = """\
Rate the text below from {low} (poor) to {high} (excellent) for being correct, clear and complete.
Answer with JSON: {{"score": number}}.

Text:
{text}"""


@dataclass(frozen=True)
class JudgeSpec(ModelSpec):
    """The model, and what it is asked. Sampling is greedy unless given.

    prompt: the rubric, with {text}, {low} and {high}. column: what is put in for {text}.
    low, high: the scale, both ends included. min_score: rows below it are rejected as "judge:score", rows that the
    judge gave no score as "judge:no_score"; None: nothing is rejected.
    """

    prompt: str = PROMPT
    column: str = "text"
    low: int = 1
    high: int = 5
    min_score: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.min_score is not None and not self.low <= self.min_score <= self.high:
            raise ValueError(f"min_score must lie in {self.low}..{self.high}")
        try:
            self.ask("x")
        except (KeyError, IndexError, ValueError):
            raise ValueError("prompt may hold {text}, {low} and {high}; write other braces twice") from None
        if "{text}" not in self.prompt:
            raise ValueError("prompt must hold {text}")

    def ask(self, text: str) -> str:
        return self.prompt.format_map({"text": text, "low": self.low, "high": self.high})


@dataclass(frozen=True)
class Verdict:
    """What the judge said of one row."""

    score: int | None = None  # None: no answer that can be read
    tokens_in: int = 0
    tokens_out: int = 0


class Judge(Stage):
    """Adds `NAME_score` (null where the answer could not be read: a finding, not a failure) and its tokens."""

    kind: ClassVar[str] = "judge"
    Spec: ClassVar[type] = JudgeSpec
    spec: JudgeSpec

    def __init__(self, spec: JudgeSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self.sampling: dict[str, Any] = {"max_tokens": 32, "temperature": 0.0, **spec.sampling}
        score = {"type": "integer", "minimum": spec.low, "maximum": spec.high}
        self.json_schema: dict[str, Any] = {
            "type": "object",
            "properties": {"score": score},
            "required": ["score"],
            "additionalProperties": False,
        }
        self._engine: Engine | None = None
        self._gate = Gate(spec.max_in_flight)
        self._done = (0, 0)

    def columns(self) -> list[pa.Field]:
        names = f"{self.name}_score", f"{self.name}_tokens_in", f"{self.name}_tokens_out"
        return [pa.field(name, pa.int32()) for name in names]

    def reads(self) -> list[str]:
        return [self.spec.column]

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

    def find(self, rows: pa.RecordBatch) -> Found:
        raise TypeError("a judge lives in a pool: find_pooled")

    async def find_pooled(self, rows: pa.RecordBatch) -> Found:
        texts, seeds = rows.column(self.spec.column).to_pylist(), rows.column("seed").to_pylist()
        verdicts = [v or Verdict() for v in await self._gate.gather([self._one(t, s) for t, s in zip(texts, seeds)])]
        values = zip(*((v.score, v.tokens_in, v.tokens_out) for v in verdicts))
        columns = {f.name: pa.array(column, f.type) for f, column in zip(self.columns(), values)}
        return Found(columns, pa.array([self._reason(v.score) for v in verdicts], pa.string()))

    async def _one(self, text: str | None, seed: int) -> Verdict:
        if self._engine is None:
            raise EngineDead("find before open")
        own_seed = (seed ^ zlib.crc32(self.name.encode())) & (1 << 63) - 1
        try:
            reply = await self._engine.chat(self.spec.ask(text or ""), self.sampling, own_seed, self.json_schema)
        except AskRefused:  # longer than the context, most likely
            return Verdict()
        finally:
            self._done = self._done[0] + 1, self._done[1]
        self._done = self._done[0], self._done[1] + reply.tokens_out
        return Verdict(read_score(reply.text, self.spec.low, self.spec.high), reply.tokens_in, reply.tokens_out)

    def _reason(self, score: int | None) -> str | None:
        least = self.spec.min_score
        if least is None:
            return None
        return "no_score" if score is None else "score" if score < least else None


def read_score(text: str, low: int, high: int) -> int | None:
    """The score in a judge's answer, None when there is none on the scale."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    score = answer.get("score") if isinstance(answer, Mapping) else None
    return score if isinstance(score, int) and not isinstance(score, bool) and low <= score <= high else None
