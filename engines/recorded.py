"""Keeps the answers of an engine whose calls cost money or cannot be repeated, so that no call is paid for twice.

An answer is kept in the output (records/output/answers.py) within `flush_s` seconds, until its lot is committed. When
the lot is made again, in whatever process, its rows take the answers from there: by row, request, and number among
equal requests of the row. The seed is no part of the key, since the order of equal calls may depend on timing.
"""

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from gristmill.engines.answer_log import AnswerLog
from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Logprobs, Messages, Reply, ToolCall
from gristmill.engines.errors import AskRefused
from gristmill.records.output.answers import AnswerFolder

logger = logging.getLogger(__name__)

FLUSH_S = 2.0
DEFAULTS = [(f.name, f.default) for f in fields(Reply)]  # the text has none


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
        self._logs: set[AnswerLog] = set()  # of the lots in work

    def __getattr__(self, name: str) -> Any:
        if name == "engine":  # before __init__, as in a copy
            raise AttributeError(name)
        return getattr(self.engine, name)

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        """A call whose money is counted. Its answer is not kept here, but by the engine of its row."""
        try:
            reply: Reply = await self.engine.chat(prompt, sampling, seed, form)
        except AskRefused as refused:
            self.paid += refused.cost
            raise
        self.paid += reply.cost
        return reply

    @asynccontextmanager
    async def log(self, lot: int) -> AsyncIterator[AnswerLog]:
        """The answers of a lot. All of them are kept at the end of the block.

        Raises UserError when the store cannot be read, or has refused to keep an answer for too long.
        """
        assert self.folder is not None
        log = AnswerLog(self.folder, self.part, lot, self.flush_s)
        await log.load()
        self._logs.add(log)
        try:
            yield log
        except BaseException:
            log.stop()
            await asyncio.to_thread(log.flush_once)
            raise
        else:
            log.stop()
            await log.flush_all()
        finally:
            self._logs.discard(log)

    def close(self) -> None:
        """Keep what is not kept yet, then close the engine."""
        for log in list(self._logs):
            log.flush_once()
        self.engine.close()


class RowEngine:
    """The engine of one row: a call whose answer is kept gets that, any other call is made and its answer kept.

    Equal calls of the row are told apart by their number. Other attributes are those of the engine.
    """

    synchronous = False

    def __init__(self, engine: RecordedEngine, log: AnswerLog, row_id: str) -> None:
        self._engine, self._log, self._row_id = engine, log, row_id
        self._num_calls: Counter[str] = Counter()  # by request

    def __getattr__(self, name: str) -> Any:
        if name == "_engine":
            raise AttributeError(name)
        return getattr(self._engine, name)

    def value(self, key: str) -> Any:
        """What `keep` has kept for this row, in this process or one before it; None for nothing."""
        kept = self._log.value(self._row_id, f"value {key}")
        return kept["value"] if isinstance(kept, dict) and "value" in kept else None

    def keep(self, key: str, literals: Any) -> None:
        """Keep literals, such as the result of a tool, until the lot is committed. None cannot be kept."""
        self._log.keep(self._row_id, f"value {key}", {"value": literals})

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        request = request_key(prompt, sampling, form)
        key = f"{request} {self._num_calls[request]}"
        self._num_calls[request] += 1
        if (kept := self._log.value(self._row_id, key)) is not None:
            outcome = outcome_of(kept)
            if isinstance(outcome, AskRefused):
                raise outcome
            if outcome is not None:
                return outcome
            logger.warning(f"row {self._row_id}: a kept answer cannot be read; the call is made again")
        await self._log.room()
        try:
            reply = await self._engine.chat(prompt, sampling, seed, form)
        except AskRefused as refused:
            if refused.cost:  # any other may be asked again, and its server may be in better health then
                value = {"refused": [refused.reason, refused.detail, refused.cost]}
                self._log.keep(self._row_id, key, value, refused.cost)
            raise
        self._log.keep(self._row_id, key, reply_literals(reply), reply.cost)
        return reply


def request_key(prompt: Messages, sampling: Mapping[str, Any], form: AnswerForm) -> str:
    """Names a request: equal for equal prompts, sampling and forms."""
    text = json.dumps([prompt, dict(sampling), form.literals()], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def reply_literals(reply: Reply) -> dict[str, Any]:
    """A reply as literals, without what is at its default."""
    literals = {name: value for name, default in DEFAULTS if (value := getattr(reply, name)) != default}
    if reply.tool_calls:
        literals["tool_calls"] = [asdict(call) for call in reply.tool_calls]
    if reply.logprobs is not None:
        literals["logprobs"] = asdict(reply.logprobs)
    return literals


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
    if not isinstance(engine, RecordedEngine) or engine.folder is None or not rows.num_rows:
        yield [engine] * rows.num_rows
        return
    async with engine.log(rows.column("lot")[0].as_py()) as log:
        yield [RowEngine(engine, log, row_id) for row_id in rows.column("id").to_pylist()]
