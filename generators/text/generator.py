"""Base of text generators: a method with an engine, which subclasses provide."""

from abc import abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any

import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, UNFINISHED, AnswerForm, ChatEngine, Reply
from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.engines.recorded import RecordedEngine, row_engines
from gristmill.engines.throttle import Throttle, throttle_of
from gristmill.generators.contract import GeneratedRow, Generator, fields_of, fill
from gristmill.generators.text.contract import Ask, Method, Session
from gristmill.generators.text.order import begin_order
from gristmill.generators.text.reply_columns import ReplyColumns
from gristmill.records.schema import ASK, REJECT

NO_ANSWER = "unfinished_reasoning"  # reason of an ask whose model thought without an end
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
        return [*self.program.payload, *self._reply_columns.fields]

    @property
    def _reply_columns(self) -> ReplyColumns:
        return ReplyColumns(self.form, self.program.keeps_turns, self.is_paid)

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
        columns, reason = self._reply_columns, None
        try:
            payload = await self.program.run(ask, session)
            if session.calls == 1 and session.finish == UNFINISHED:
                raise AskRefused(NO_ANSWER)
            texts = self.program.kept_texts(ask, payload) if self.program.keeps_turns else ()
            payload |= columns.values(session, engine, self.program.answer(ask, payload), texts)
        except (AskRefused, RecursionError) as error:
            # The tokens of the calls before the refusal count, and their turns are evidence.
            payload = columns.values(session, engine, None)
            reason = error.reason if isinstance(error, AskRefused) else TOO_DEEP
            reason = NO_ANSWER if session.finish == UNFINISHED else reason
        finally:
            self._totals = self._totals[0] + 1, self._totals[1]
        return GeneratedRow(payload, session.finish, session.tokens_in, session.tokens_out, reason)

    def _count(self, reply: Reply) -> None:
        self._totals = self._totals[0], self._totals[1] + reply.tokens_out


def _drive(job: Coroutine[Any, Any, GeneratedRow]) -> GeneratedRow:
    """Run a coroutine that never waits, without a task."""
    try:
        job.send(None)
    except StopIteration as done:
        row: GeneratedRow = done.value
        return row
    job.close()
    raise RuntimeError("a synchronous engine waited")
