"""Keeps the answers of an engine whose calls cost money or cannot be repeated, so that no call is paid for twice.

An answer is kept in the output (records/output/answers.py) within `flush_s` seconds, until its lot is committed. When
the lot is made again, in whatever process, its rows take the answers from there: by row, request, and number among
equal requests of the row. The seed is no part of the key, since the order of equal calls may depend on timing.
"""

import asyncio
import hashlib
import json
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Logprobs, Messages, Reply, ToolCall
from gristmill.engines.errors import AskRefused
from gristmill.records.errors import UserError
from gristmill.records.output.answers import AnswerFolder, Record, keep, name_of, records_of
from gristmill.records.stores.retry import retry_s

logger = logging.getLogger(__name__)

FLUSH_S = 2.0
PUT_SHARE = 0.25  # of `flush_s` that is left for the put itself
OVERDUE_FLUSHES = 5  # an answer that is kept so late holds back further calls
LOOK_S = 0.05


class RecordedEngine:
    """An engine whose answers are kept. Other attributes are those of the engine."""

    synchronous = False

    def __init__(self, engine: Any, folder: AnswerFolder | None, part: str) -> None:
        """`part`: "generator", or the name of a stage. Without a `folder` nothing is kept, and money is still counted.

        The engine may have `flush_s: float`, by default FLUSH_S.
        """
        self.engine, self.folder, self.part = engine, folder, part
        self.flush_s: float = getattr(engine, "flush_s", FLUSH_S)
        self.paid = 0.0  # money for calls of this engine; answers that were kept before count no more
        self._lots: set[LotEngine] = set()

    def __getattr__(self, name: str) -> Any:
        if name == "engine":  # before __init__, as in a copy
            raise AttributeError(name)
        return getattr(self.engine, name)

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        """A call beside the rows of a lot: it is paid for, and its answer is not kept."""
        try:
            reply: Reply = await self.engine.chat(prompt, sampling, seed, form)
        except AskRefused as refused:
            self.paid += refused.cost
            raise
        self.paid += reply.cost
        return reply

    @asynccontextmanager
    async def lot(self, number: int) -> AsyncIterator["LotEngine"]:
        """The engine of a lot, with the answers that are kept of it. All of its own are kept at the end of the block.

        Raises UserError when the store cannot be read, or has refused to keep an answer for too long.
        """
        lot = LotEngine(self, number)
        await lot.load()
        self._lots.add(lot)
        try:
            yield lot
        except BaseException:
            lot.stop()
            try:
                await asyncio.to_thread(lot.flush)
            except (UserError, OSError) as error:
                logger.warning(f"lot {number}: the last answers are not kept: {error}")
            raise
        else:
            lot.stop()
            await lot.flush_all()
        finally:
            self._lots.discard(lot)

    def close(self) -> None:
        """Keep what is not kept yet, then close the engine."""
        for lot in list(self._lots):
            try:
                lot.flush()
            except (UserError, OSError) as error:
                logger.warning(f"lot {lot.number}: the last answers are not kept: {error}")
        self.engine.close()


class LotEngine:
    """The answers of a lot: those that are kept, and those that are not kept yet."""

    def __init__(self, engine: RecordedEngine, number: int) -> None:
        self.engine, self.number = engine, number
        self._kept: dict[tuple[str, str], Any] = {}  # by row and key
        self._pending: deque[tuple[float, Record]] = deque()  # with the times of the answers
        self._batch: list[Record] = []  # that is being put: a put that failed is repeated with the same content
        self._batch_since = 0.0
        self._writer, self._num_put = secrets.token_hex(8), 0
        self._flushing = threading.Lock()
        self._timer: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._error: UserError | None = None

    def row(self, row_id: str) -> "RowEngine":
        """The engine of a row, from its first call on."""
        return RowEngine(self, row_id)

    async def load(self) -> None:
        if (folder := self.engine.folder) is not None:
            for record in await asyncio.to_thread(lambda: list(records_of(folder, self.number))):
                if record.part == self.engine.part:
                    self._kept.setdefault((record.row, record.key), record.value)

    def value(self, row_id: str, key: str) -> Any:
        """What is kept under a key of a row, as literals; None for nothing."""
        return self._kept.get((row_id, key))

    def keep(self, row_id: str, key: str, value: Any, cost: float = 0.0) -> None:
        """Keep literals under a key of a row, within `flush_s`."""
        self.engine.paid += cost
        self._kept[row_id, key] = value
        if self.engine.folder is not None:
            self._pending.append((time.monotonic(), Record(self.engine.part, row_id, key, value, cost)))
            if self._timer is None or self._timer.done():
                self._timer = asyncio.ensure_future(self._flush_soon())

    async def room(self) -> None:
        """Wait while answers are kept too late: what is paid for meanwhile would be lost with this process.

        Raises UserError when the store has failed for too long.
        """
        while self._error is None and self._age_s > OVERDUE_FLUSHES * self.engine.flush_s:
            await asyncio.sleep(LOOK_S)
        if self._error is not None:
            raise self._error

    @property
    def _age_s(self) -> float:
        """Age of the oldest answer that is not kept yet."""
        try:
            since = self._batch_since if self._batch else self._pending[0][0]
        except IndexError:
            return 0.0
        return time.monotonic() - since

    def flush(self) -> None:
        """Put what is not put yet. Raises UserError or OSError; another call tries again. Any thread may call it."""
        with self._flushing:
            while self._batch or self._pending:
                if not self._batch:
                    answers = [self._pending.popleft() for _ in range(len(self._pending))]
                    self._batch_since, self._batch = answers[0][0], [record for _, record in answers]
                assert self.engine.folder
                keep(self.engine.folder, name_of(self.number, self._writer, self._num_put), self._batch)
                self._num_put += 1
                self._batch = []
            self._failing_since = None

    async def flush_all(self) -> None:
        """Put all answers. Raises UserError when the store has failed for too long."""
        while self._batch or self._pending:
            await self._try_flush()
            if self._error is not None:
                raise self._error

    async def _flush_soon(self) -> None:
        """Put the answers when the first of them has waited long enough for others."""
        while self._pending or self._batch:
            await asyncio.sleep(max(0.0, (1 - PUT_SHARE) * self.engine.flush_s - self._age_s))
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await asyncio.to_thread(self.flush)
        except (UserError, OSError) as error:
            now = time.monotonic()
            if self._failing_since is None:
                self._failing_since = now
                logger.warning(f"lot {self.number}: answers are not kept yet, so calls wait: {error}")
            elif now - self._failing_since > retry_s():
                self._error = UserError(
                    f"answers that are paid for cannot be kept ({error}); repair that, and run the same command again"
                )
                return
            await asyncio.sleep(self.engine.flush_s / OVERDUE_FLUSHES)

    def stop(self) -> None:
        """End the timer. A put that has begun goes on."""
        if self._timer is not None:
            self._timer.cancel()


class RowEngine:
    """The engine of one row: a call whose answer is kept gets that, any other call is made and its answer kept.

    Equal calls of the row are told apart by their number. Other attributes are those of the engine.
    """

    synchronous = False

    def __init__(self, lot: LotEngine, row_id: str) -> None:
        self._lot, self._row_id = lot, row_id
        self._num_calls: Counter[str] = Counter()  # by request

    def __getattr__(self, name: str) -> Any:
        if name == "_lot":
            raise AttributeError(name)
        return getattr(self._lot.engine, name)

    def value(self, key: str) -> Any:
        """What `keep` has kept for this row, in this process or one before it; None for nothing."""
        kept = self._lot.value(self._row_id, f"value {key}")
        return kept["value"] if isinstance(kept, dict) and "value" in kept else None

    def keep(self, key: str, literals: Any) -> None:
        """Keep literals, such as the result of a tool, until the lot is committed. None cannot be kept."""
        self._lot.keep(self._row_id, f"value {key}", {"value": literals})

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        request = request_key(prompt, sampling, form)
        key = f"{request} {self._num_calls[request]}"
        self._num_calls[request] += 1
        if (kept := self._lot.value(self._row_id, key)) is not None:
            if (outcome := outcome_of(kept)) is not None:
                if isinstance(outcome, AskRefused):
                    raise outcome
                return outcome
            logger.warning(f"row {self._row_id}: a kept answer cannot be read; the call is made again")
        await self._lot.room()
        try:
            reply: Reply = await self._lot.engine.engine.chat(prompt, sampling, seed, form)
        except AskRefused as refused:
            if refused.cost:  # any other may be asked again, and its server may be in better health then
                value = {"refused": [refused.reason, refused.detail, refused.cost]}
                self._lot.keep(self._row_id, key, value, refused.cost)
            raise
        self._lot.keep(self._row_id, key, reply_literals(reply), reply.cost)
        return reply


def request_key(prompt: Messages, sampling: Mapping[str, Any], form: AnswerForm) -> str:
    """Names a request: equal for equal prompts, sampling and forms."""
    text = json.dumps([prompt, dict(sampling), form.literals()], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def reply_literals(reply: Reply) -> dict[str, Any]:
    """A reply as literals, without what is at its default."""
    default = asdict(Reply(""))
    return {name: value for name, value in asdict(reply).items() if name == "text" or value != default[name]}


def outcome_of(literals: Any) -> Reply | AskRefused | None:
    """The reply or the refusal that literals describe; None for any others."""
    try:
        if "refused" in literals:
            reason, detail, cost = literals["refused"]
            return AskRefused(str(reason), str(detail), float(cost))
        logprobs = literals.get("logprobs")
        calls = tuple(ToolCall(**call) for call in literals.get("tool_calls", ()))
        return Reply(**{**literals, "tool_calls": calls, "logprobs": Logprobs(**logprobs) if logprobs else None})
    except (TypeError, ValueError, AttributeError):
        return None


@asynccontextmanager
async def row_engines(engine: Any, rows: pa.RecordBatch) -> AsyncIterator[Sequence[ChatEngine]]:
    """The engines of the rows of a lot: `engine` itself for each, unless its answers are kept."""
    if not isinstance(engine, RecordedEngine) or not rows.num_rows:
        yield [engine] * rows.num_rows
        return
    async with engine.lot(rows.column("lot")[0].as_py()) as lot:
        yield [lot.row(row_id) for row_id in rows.column("id").to_pylist()]
