"""A teacher that records when its calls run and what its rows hold, to measure an engine (`gristmill tune`)."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Messages, Reply, ServedEngine
from gristmill.engines.errors import AskRefused
from gristmill.generators.contract import GeneratedRow
from gristmill.generators.teacher import Teacher
from gristmill.generators.text.contract import Method

REFUSED = "engine_refused"  # reason of an ask whose settings vLLM does not take
FULL = 0.8  # share of the most calls at once from which a batch counts as full


@dataclass(eq=False)
class CallTime:
    """A call of an engine, in monotonic seconds."""

    begin: float
    end: float | None = None  # None: it had no answer when the measurement ended
    tokens: int = 0  # of the answer


class TimedEngine:
    """An engine that records its calls and the first refusal."""

    synchronous = False

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.calls: list[CallTime] = []
        self.refusal = ""

    @property
    def num_slots(self) -> int:
        return int(self.engine.num_slots)

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        call = CallTime(time.monotonic())
        self.calls.append(call)
        try:
            reply: Reply = await self.engine.chat(prompt, sampling, seed, form)
        except AskRefused as refused:
            self.calls.remove(call)
            if refused.reason == REFUSED:
                self.refusal = self.refusal or refused.detail or REFUSED
            raise
        call.end, call.tokens = time.monotonic(), reply.tokens_out
        return reply

    def check_user_turn(self) -> None:
        self.engine.check_user_turn()

    async def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = await self.engine.facts()
        return facts

    def close(self) -> None:
        self.engine.close()


class TimedTeacher(Teacher):
    """A teacher with the same rows, which keeps its finished rows and the times of all calls."""

    def __init__(self, spec: Any, method: Method) -> None:
        super().__init__(spec, method)
        self.timed: TimedEngine | None = None
        self.rows: dict[str, GeneratedRow] = {}  # finished rows by id

    def open_engine(self) -> ServedEngine:
        self.timed = TimedEngine(super().open_engine())
        return self.timed

    async def _one(self, engine: ChatEngine, row_id: str, seed: int, text: str | None) -> GeneratedRow:
        row = await super()._one(engine, row_id, seed, text)
        self.rows[row_id] = row
        return row

    def close(self) -> None:
        self.timed = None
        super().close()


def digest(row: GeneratedRow) -> str:
    """16 hex characters over what the row holds: payload, finish and reason."""
    content = json.dumps([row.payload, row.finish, row.reason], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def full_rate(calls: Sequence[CallTime], end: float) -> float:
    """Tokens per second while the batch is full; 0 when no call was answered.

    The batch is full from the first to the last moment at which FULL of the most calls at once are running: the wait
    for the longest answers is left out. The tokens of a call are spread evenly over its time. A call that runs at
    `end` counts with the mean speed of the answered calls.
    """
    done = [call for call in calls if call.end is not None]
    busy_s = sum(call.end - call.begin for call in done if call.end is not None)
    if not done or busy_s <= 0:
        return 0.0
    mean = sum(call.tokens for call in done) / busy_s  # of one call
    spans = [(call.begin, end if call.end is None else call.end, call) for call in calls]
    steps = sorted([(begin, 1) for begin, _, _ in spans] + [(stop, -1) for _, stop, _ in spans])
    running, counts = 0, []
    for moment, change in steps:
        running += change
        counts.append((moment, running))
    most = max(number for _, number in counts)
    full = [place for place, (_, number) in enumerate(counts) if number >= FULL * most]
    first, last = counts[full[0]][0], counts[min(full[-1] + 1, len(counts) - 1)][0]
    if last <= first:
        return 0.0
    tokens = 0.0
    for begin, stop, call in spans:
        overlap = max(0.0, min(stop, last) - max(begin, first))
        speed = mean if call.end is None else call.tokens / max(stop - begin, 1e-9)
        tokens += speed * overlap
    return tokens / (last - first)
