"""The method contract: how a text generator works on one ask, whatever engine answers.

A method is a small async program beside the engine: `run` may call `session.chat` once or many times (draft, critique,
revise; k votes), one after another or gathered, and answers with the payload of one row. Prompts are templates in the
recipe: `{column}` stands for a column of the source row, `{{` and `}}` for plain braces.
"""

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Messages, Reply, with_finish
from gristmill.engines.errors import AskRefused
from gristmill.records.ids import GOLDEN, MASK_64, mix_bits
from gristmill.records.schema import clean
from gristmill.records.spec import literals

# The calls of a row in order: name, last message, reply and tokens of each.
TURNS = pa.field(
    "turns",
    pa.list_(
        pa.struct(
            [
                pa.field("turn", pa.string()),
                pa.field("prompt", pa.string()),
                pa.field("text", pa.string()),
                pa.field("tokens_in", pa.int32()),
                pa.field("tokens_out", pa.int32()),
            ]
        )
    ),
)
# Tokens of what the model wrote and the row keeps; of the other calls only `tokens_out` tells. See `Method.kept_texts`.
TOKENS_KEPT = pa.field("tokens_kept", pa.int32())
T = TypeVar("T")
BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# Payload columns with the answer to the row's question; without one of them the text is the answer.
ANSWER_COLUMNS = ("output", "solution", "code", "chosen")
FINISH_RANK = {"tool_calls": -1, "stop": 0, "length": 1}  # any other finish is worse


def mix(seed: int, salt: int) -> int:
    """An int in [0, 2^63) from (seed, salt): splitmix64, cheap enough to draw per row and per call."""
    return mix_bits((seed + (salt + 1) * GOLDEN) & MASK_64) >> 1


class Template:
    """A prompt with `{column}` holes.

    A hole holds the name of a column as it is, with blanks, dots and colons: nothing in it is a format code. Raises
    ValueError for braces that make no hole.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: list[str] = []
        self._pieces: list[tuple[str, str | None]] = []  # text, and the column after it
        at, plain = 0, ""
        for match in BRACES.finditer(text):
            plain += text[at : match.start()]
            at, brace, name = match.end(), match[0], match[1]
            if brace in ("{{", "}}"):
                plain += brace[0]
                continue
            if name is None or not name.strip() or any(character in name for character in '"\n'):
                raise ValueError(
                    f"template {text[:60]!r}: {brace!r} is not a column name (write {{{{ and }}}} for plain braces)"
                )
            self._pieces.append((plain, name))
            plain = ""
            if name not in self.names:
                self.names.append(name)
        self._pieces.append((plain + text[at:], None))

    def render(self, fields: Mapping[str, Any]) -> str:
        """The prompt for one row. Raises AskRefused("missing_field") when a column is absent or null."""
        pieces = []
        for text, name in self._pieces:
            pieces.append(text)
            if name is None:
                continue
            value = fields.get(name)
            if value is None:
                raise AskRefused("missing_field", name)
            pieces.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        return clean("".join(pieces))  # tokenizers reject lone surrogates, which cut JSON texts contain


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a row."""

    id: str
    seed: int
    fields: Mapping[str, Any]  # the source row


class Session:
    """The calls of an ask: gives every call its own seed, keeps the turns and adds up the tokens."""

    __slots__ = (
        *("_engine", "_form", "_on_reply", "_sampling", "_seed"),
        *("calls", "cost", "finish", "replies", "tokens_in", "tokens_out", "turns"),
    )

    def __init__(
        self,
        engine: ChatEngine,
        seed: int,
        sampling: Mapping[str, Any],
        form: AnswerForm = FREE_TEXT,
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        """`form`: of every answer, unless a call states its own. `on_reply` gets every reply as it arrives."""
        self._engine = engine
        self._on_reply = on_reply
        self._seed = seed
        self._sampling = sampling
        self._form = form
        self.calls = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self.cost = 0.0  # money paid for the calls, those that were refused included
        self.finish: str | None = None  # the worst of all calls
        self.turns: list[dict[str, Any] | None] = []  # None while a call is running
        self.replies: list[Reply | None] = []  # of the turns

    async def chat(
        self,
        prompt: Messages,
        json_schema: Mapping[str, Any] | None = None,
        turn: str = "answer",
        tools: Sequence[Mapping[str, Any]] = (),
        **sampling: Any,
    ) -> Reply:
        """One call. `prompt` is a user message or a list of {"role", "content"}; `sampling` overrides the recipe's.

        json_schema: structure of this answer, in place of the recipe's. tools: functions that the model may call.

        If the last message is engines.user_turn.USER_TURN, the model writes the user's message; see `writes_user`.
        Turns keep the order of the calls, whichever is answered first.
        """
        seed = mix(self._seed, self.calls)
        at = self.calls
        self.calls += 1
        self.turns.append(None)
        self.replies.append(None)
        settings = {**self._sampling, **sampling} if sampling else self._sampling
        form = self._form
        if json_schema or tools:
            form = AnswerForm(json_schema, tools=tuple(tools), logprobs=form.logprobs, reasoning=form.reasoning)
        try:
            reply = with_finish(await self._engine.chat(prompt, settings, seed, form))
        except AskRefused as refused:
            self.cost += refused.cost
            raise
        self.cost += reply.cost
        if self._on_reply is not None:
            self._on_reply(reply)
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        if self.finish is None or FINISH_RANK.get(reply.finish, 2) > FINISH_RANK.get(self.finish, 2):
            self.finish = reply.finish
        last_prompt = prompt if isinstance(prompt, str) else (prompt[-1].get("content") or "") if prompt else ""
        self.replies[at] = reply
        self.turns[at] = {
            "turn": turn,
            "prompt": clean(last_prompt),
            "text": clean(_written(reply)),
            "tokens_in": reply.tokens_in,
            "tokens_out": reply.tokens_out,
            **({"reasoning": reply.reasoning and clean(reply.reasoning)} if form.reasoning else {}),
        }
        return reply

    @property
    def synchronous(self) -> bool:
        """Whether nothing may wait: the engine answers at once, and its coroutines run without an event loop."""
        return self._engine.synchronous

    async def blocking(self, threads: Executor | None, work: Callable[[], T]) -> T:
        """The value of `work`, which may block: in one of `threads`, or here if nothing may wait."""
        if self.synchronous:
            return work()
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    async def chats(
        self,
        prompts: Sequence[Messages],
        json_schema: Mapping[str, Any] | None = None,
        turn: str = "answer",
        **sampling: Any,
    ) -> list[Reply]:
        """A call for each of `prompts`, all at once, each with its own seed; the replies in order.

        Raises AskRefused for the first refusal, after all calls are done: so costs do not depend on timing.
        """
        calls = [self._outcome(prompt, json_schema, turn, **sampling) for prompt in prompts]
        if self._engine.synchronous:
            outcomes = [await call for call in calls]
        else:
            outcomes = await asyncio.gather(*calls)
        for outcome in outcomes:
            if isinstance(outcome, AskRefused):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Reply)]

    def value(self, key: str) -> Any:
        """What `keep` has kept under this name for this ask, also before a restart; None for nothing."""
        find = getattr(self._engine, "value", None)
        return find(key) if find is not None else None

    def keep(self, key: str, literals: Any) -> None:
        """Keep literals, such as the result of a tool, beside the answers of an engine whose answers are kept."""
        note = getattr(self._engine, "keep", None)
        if note is not None:
            note(key, literals)

    async def _outcome(self, *call: Any, **sampling: Any) -> Reply | AskRefused:
        try:
            return await self.chat(*call, **sampling)
        except AskRefused as refused:
            return refused


class Method(ABC):
    """Base of every method. Subclasses set `kind` and `Spec`, declare `payload` and `fields_read`, and write `run`."""

    kind: ClassVar[str]
    revision: ClassVar[int] = 1  # raised whenever the same spec, asks and seeds get other calls; part of the identity
    Spec: ClassVar[type]
    keeps_turns: bool = False  # whether rows have the column `turns`, as methods of several calls do
    writes_user: ClassVar[bool] = False  # whether the model writes a user's message, which needs a chat template
    answers_follow_asks: ClassVar[bool] = False  # whether a longer ask has a longer answer, as in a translation
    # Rows of earlier rounds that later rounds read: "row", a kept row in place of the source's; "examples", some rows
    # beside the source's; "": none, and the method takes no [rounds]. See records/rounds.py.
    feed: ClassVar[str] = ""
    reads_pairs: bool = False  # whether asks show a second row of the source, which [pairs] relates to the first
    feedback_columns: ClassVar[tuple[str, ...]] = ()  # the payload columns that are fed back, under their own names

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    @property
    @abstractmethod
    def payload(self) -> list[pa.Field]:
        """The payload columns; `text` is the column that stages verify and deduplicate."""

    @abstractmethod
    def fields_read(self) -> list[str]:
        """Columns that the source must have."""

    @property
    def calls_tools(self) -> bool:
        """Whether the model calls tools in the format of its chat template, which the engine must read."""
        return False

    @property
    def is_repeatable(self) -> bool:
        """Whether the same asks and answers of the model give the same rows; not with tools that answer otherwise."""
        return True

    def check(self) -> None:  # noqa: B027
        """Preflight on the driver. Raises UserError when a file or package is out of reach. Starts nothing."""

    def open(self) -> None:  # noqa: B027
        """Start what `run` needs beside the engine, once per replica."""

    def close(self) -> None:  # noqa: B027
        """Free what `open` has started. Safe at any time."""

    def most_tokens(self, max_tokens: int) -> int | None:
        """The largest number of answer tokens of an ask, at `max_tokens` a call; None: unknown."""
        return None if self.keeps_turns else max_tokens

    def identity(self) -> dict[str, Any]:
        """Literals that change rows: the whole spec, prompts included."""
        return {"kind": self.kind, "revision": self.revision, **literals(self.spec)}

    def example_reply(self, prompt: str, seed: int) -> str | None:
        """A well-formed reply to a prompt of this method, for the canned generator; None: any text will do.

        For methods that read more than text from a reply and state no JSON schema, such as a program or a number.
        """
        return None

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        """What the model wrote and the row keeps as what it teaches, each text once: by default `text`.

        Left out are words of the source, judges' verdicts, critiques, and answers that lost.
        """
        return [payload["text"]]

    def answer(self, ask: Ask, payload: Mapping[str, Any]) -> str:
        """The answer of a row: the call that wrote it gives the row its reasoning and its logprobs."""
        names = (name for name in ANSWER_COLUMNS if payload.get(name))
        return str(payload.get(next(names, "text")) or "")

    @abstractmethod
    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        """The payload of a row. Raises AskRefused when this ask cannot be served."""


def _written(reply: Reply) -> str:
    """What a reply says, its tool calls included."""
    calls = [f"{call.name}({call.arguments})" for call in reply.tool_calls]
    return "\n".join([*([reply.text] if reply.text or not calls else []), *calls])


def conversation(system: str, user: str) -> Messages:
    """The messages of a single turn, with the system message if there is one."""
    if not system:
        return user
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def pick(options: Sequence[str], seed: int, salt: int) -> str:
    """One of `options`, drawn from (seed, salt)."""
    return options[mix(seed, salt) % len(options)]
