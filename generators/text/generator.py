"""Base of text generators: a method with an engine, which subclasses provide."""

from abc import abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Reply
from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.engines.recorded import RecordedEngine, row_engines
from gristmill.engines.throttle import Throttle, throttle_of
from gristmill.generators.contract import GeneratedRow, Generator, fields_of, fill
from gristmill.generators.text.contract import TOKENS_KEPT, TURNS, Ask, Method, Session
from gristmill.generators.text.order import begin_order
from gristmill.records.schema import ASK, REJECT, clean, cost_field

COST = cost_field("cost")
TOO_DEEP = "nested_too_deeply"  # reason of an ask or an answer whose values are nested too deeply to be read


class TextGenerator(Generator):
    """Base of the generators that answer asks with text. Subclasses create the engine in `open_engine`."""

    takes_method = True
    sampling: Mapping[str, Any] = {}
    form: AnswerForm = FREE_TEXT  # of every answer, unless a call of the method states its own

    def __init__(self, spec: Any, method: Method, max_in_flight: int | None = None) -> None:
        """`max_in_flight`: concurrent asks of this replica; None: what its engine batches."""
        self.spec = spec
        self.program = method
        self._engine: ChatEngine | None = None
        self._max_in_flight = max_in_flight
        self._throttle = throttle_of(None, max_in_flight)
        self._totals = (0, 0)

    @property
    def payload(self) -> list[pa.Field]:
        turns = [TOKENS_KEPT, TURNS] if self.program.keeps_turns else []
        return [*self.program.payload, *turns, *([COST] if self.is_paid else [])]

    @property
    def method(self) -> str | None:
        return self.program.kind

    def fields_read(self) -> list[str]:
        """Columns that the source must have."""
        return self.program.fields_read()

    def identity(self) -> dict[str, Any]:
        counts = {"tokens_kept": 1} if self.program.keeps_turns else {}  # rows have this column since 0.4
        return {**super().identity(), "kind": self.kind, "method": self.program.identity(), **counts}

    @property
    def progress(self) -> tuple[int, int]:
        return self._totals

    @property
    def paid(self) -> float:
        return self._engine.paid if isinstance(self._engine, RecordedEngine) else 0.0

    @property
    def throttle(self) -> Throttle | None:
        return self._throttle if self._engine is not None and not self._engine.synchronous else None

    @abstractmethod
    def open_engine(self) -> ChatEngine:
        """The engine, ready to answer."""

    def check(self) -> None:
        """See Generator.check; subclasses extend it."""
        self.program.check()

    def open(self) -> None:
        self.program.open()
        try:
            engine = self.open_engine()
        except BaseException:
            self.program.close()
            raise
        self._engine = RecordedEngine(engine, self.answers, "generator") if self.is_paid else engine
        self._throttle = throttle_of(self._engine, self._max_in_flight)

    def close(self) -> None:
        """See Generator.close; subclasses extend it."""
        self.program.close()

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        engine = self._engine
        if engine is None:
            raise EngineDead("make before open")
        columns = [asks.column(name).to_pylist() for name in ("id", "seed", ASK.name, REJECT.name)]
        async with row_engines(engine, asks) as engines:
            jobs = [self._one(*row[:4]) if row[4] is None else None for row in zip(engines, *columns)]
            if engine.synchronous:
                rows = [_drive(job) if job is not None else None for job in jobs]
            else:
                rows = await self._throttle.gather(jobs, begin_order(columns[2], self.program.answers_follow_asks))
        return fill(asks, self.payload, rows)

    async def _one(self, engine: ChatEngine, row_id: str, seed: int, text: str | None) -> GeneratedRow:
        fields = fields_of(text)
        if fields is None:
            return GeneratedRow(reason="malformed_ask")
        ask, session = Ask(row_id, seed, fields), Session(engine, seed, self.sampling, self.form, self._count)
        try:
            payload = await self.program.run(ask, session)
        except (AskRefused, RecursionError) as error:
            # The tokens of the calls before the refusal count, and their turns are evidence.
            reason = error.reason if isinstance(error, AskRefused) else TOO_DEEP
            return GeneratedRow(self._evidence(session), session.finish, session.tokens_in, session.tokens_out, reason)
        finally:
            self._totals = self._totals[0] + 1, self._totals[1]
        if self.program.keeps_turns:
            payload |= {TOKENS_KEPT.name: tokens_kept(self.program.kept_texts(ask, payload), session, engine)}
        payload |= self._evidence(session)
        return GeneratedRow(payload, session.finish, session.tokens_in, session.tokens_out)

    def _count(self, reply: Reply) -> None:
        self._totals = self._totals[0], self._totals[1] + reply.tokens_out

    def _evidence(self, session: Session) -> dict[str, Any]:
        """The turns of a row where they are kept, and its cost where it has one."""
        # A call beside one that failed may have been cancelled without an answer.
        turns = {TURNS.name: [turn for turn in session.turns if turn]} if self.program.keeps_turns else {}
        return {**turns, **({COST.name: session.cost} if self.is_paid else {})}


def tokens_kept(texts: Sequence[str], session: Session, engine: ChatEngine) -> int:
    """Tokens of texts that a row keeps, at most those that its calls wrote.

    A text that is the whole of an answer counts as the tokens of that answer. Any other is counted by the tokenizer of
    the engine, or where the engine has none by its share of the characters of all answers.
    """
    answers = {turn["text"].strip(): turn["tokens_out"] for turn in session.turns if turn}
    count = getattr(engine, "count_tokens", None)
    num_chars = sum(len(turn["text"]) for turn in session.turns if turn)
    total = 0
    for text in map(str.strip, map(clean, texts)):
        if text in answers:
            total += answers[text]
        elif text:
            total += count(text) if count else -(-session.tokens_out * len(text) // max(1, num_chars))
    return min(total, session.tokens_out)


def _drive(job: Coroutine[Any, Any, GeneratedRow]) -> GeneratedRow:
    """Run a coroutine that never waits, without a task."""
    try:
        job.send(None)
    except StopIteration as done:
        made: GeneratedRow = done.value
        return made
    job.close()
    raise RuntimeError("a synchronous engine waited")
