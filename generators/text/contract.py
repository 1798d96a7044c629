"""The method contract: how a text generator works on one ask, whatever engine answers.

A method is a small async program beside the engine: `run` may call `session.chat` once or many times (draft, critique,
revise; k votes), one after another or gathered, and answers with the payload of one row. Prompts are templates in the
recipe: `{column}` stands for a column of the source row, `{{` and `}}` for plain braces.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import Messages
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.session import Session, mix
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
BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# Payload columns with the answer to the row's question; without one of them the text is the answer.
ANSWER_COLUMNS = ("output", "solution", "code", "chosen")


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


def conversation(system: str, user: str) -> Messages:
    """The messages of a single turn, with the system message if there is one."""
    if not system:
        return user
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def pick(options: Sequence[str], seed: int, salt: int) -> str:
    """One of `options`, drawn from (seed, salt)."""
    return options[mix(seed, salt) % len(options)]
