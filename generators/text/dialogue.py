"""Conversations of several turns between a simulated user and the assistant, after UltraChat (arXiv 2305.14233).

Each side is written by its own calls (Ding et al. 2023). The assistant answers as any chat model does. The user is the
same model under another prompt, which shows the conversation so far and a persona. The persona is drawn, so k samples
of a topic are k users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text, strip_label
from gristmill.generators.text.contract import Ask, Session, mix, pick
from gristmill.generators.text.prompts import column, drawn_columns, render
from gristmill.generators.text.steps import Steps, StepsSpec
from gristmill.records.schema import clean
from gristmill.records.spec import later
from gristmill.records.templates import template_texts

PERSONAS = (
    "a curious ten-year-old",
    "a student preparing for an exam",
    "a parent with little time to spare",
    "a retired engineer who enjoys details",
    "a beginner whose first attempt has failed",
    "a teacher who needs an example for tomorrow's class",
    "a sceptic who wants to know what the evidence is",
    "a practical person who wants to know what to do",
)
MESSAGES = pa.field("messages", pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])))
Message = dict[str, str]
# Reasons that end a conversation. When the context is nearly full, an answer is cut off before no room is left.
ENDS = ("ended", "context_length", "cut_user", "cut_assistant")
END_PUNCTUATION = "\"'*.!()"  # of the user's last word, before it is compared with `end`
SPEAKERS = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True)
class DialogueSpec(StepsSpec):
    """Settings of `dialogue`.

    Calls: `opening` ({topic}, {persona}), the user's first message; `further` ({transcript}, {topic}, {persona},
    {end}), the user's other messages; `assistant`, the answers, which has no template and gets the messages. The user
    may end early by `end`; a conversation also ends when it fills the model's context.
    """

    TEMPLATES = {**template_texts(__file__, "dialogue", "opening", "further"), "assistant": ""}
    HOLES = {"opening": ("topic",), "further": ("transcript",)}

    exchanges: int = 3  # exchanges of user and assistant at most; the number is drawn by the row's seed
    min_exchanges: int = 2  # exchanges at least; a row with fewer is refused as "ended" or "context_length"
    topic: str = "topic"  # source column of the topic
    personas: tuple[str, ...] = PERSONAS  # descriptions of the user, drawn by the row's seed
    # source column with a description of the user, such as "a nurse of 40"; default: one of `personas`
    persona: str | None = later(None)
    end: str = "END"  # word by which the user ends the conversation

    def __post_init__(self) -> None:
        column(self.topic)
        if self.persona is not None:
            column(self.persona)
            if self.personas != PERSONAS:
                raise ValueError("give either persona, a column of the source, or personas")
        if not 1 <= self.min_exchanges <= self.exchanges:
            raise ValueError("min_exchanges must be at least 1 and at most exchanges")
        if not self.personas:
            raise ValueError("personas needs at least one entry")
        if not self.end or len(self.end.split()) != 1 or self.end != self.end.strip(END_PUNCTUATION):
            raise ValueError(f"end must be one word without any of {END_PUNCTUATION} around it, not {self.end!r}")
        if "assistant" in self.templates:
            raise ValueError("templates.assistant: this call gets the messages; use `system`")
        super().__post_init__()


class Dialogue(Steps):
    """Keeps the `messages` and the number of exchanges; `text` is the conversation with speakers."""

    kind = "dialogue"
    revision = 2
    Spec = DialogueSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"topic", "persona", "transcript", "end"})
    spec: DialogueSpec

    def __init__(self, spec: DialogueSpec) -> None:
        super().__init__(spec)
        self._topic = column(spec.topic)
        self._persona = column(spec.persona) if spec.persona is not None else None

    @property
    def payload(self) -> list[pa.Field]:
        return [
            pa.field("topic", pa.string()),
            *(
                pa.field(name, pa.string())
                for name in drawn_columns(("persona",), [*self._prompts.values(), self._system])
            ),
            MESSAGES,
            pa.field("exchanges", pa.int32()),
            pa.field("text", pa.string()),
        ]

    def fields_read(self) -> list[str]:
        return self.columns_of(self._topic, *([self._persona] if self._persona else []))

    def ways(self) -> list[dict[str, int]]:
        most = self.spec.exchanges
        return [{"opening": 1, "further": most - 1, "assistant": most}]

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [message["content"] for message in payload["messages"] if message["role"] != "system"]

    def answer(self, ask: Ask, payload: Mapping[str, Any]) -> str:
        return str(payload["messages"][-1]["content"])

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        spec = self.spec
        drawn = render(self._persona, ask.fields) if self._persona else pick(spec.personas, ask.seed, -2)
        choices = {"topic": render(self._topic, ask.fields), "persona": drawn}
        fields = {**ask.fields, **choices, "end": spec.end}
        system = self._system.render(fields)
        messages = [{"role": "system", "content": system}] if system else []
        first = len(messages)
        num_exchanges = spec.min_exchanges + mix(ask.seed, -3) % (spec.exchanges - spec.min_exchanges + 1)
        for exchange in range(num_exchanges):
            try:
                messages += await self._exchange(fields, messages, messages[first:], session)
            except AskRefused as refused:
                if refused.reason not in ENDS or exchange < spec.min_exchanges:
                    raise
                break
        dialogue = messages[first:]
        return {**choices, "messages": messages, "exchanges": len(dialogue) // 2, "text": transcript(dialogue)}

    async def _exchange(
        self, fields: Mapping[str, Any], messages: list[Message], dialogue: list[Message], session: Session
    ) -> list[Message]:
        """The user's next message and its answer. Raises AskRefused("ended") when the user ends the conversation."""
        turn = "further" if dialogue else "opening"
        prompt = self._prompts[turn].render({**fields, "transcript": transcript(dialogue)})  # without `system`
        reply = await session.chat(prompt, turn=turn, **self.spec.sampling.get(turn, {}))
        words = reply.text.split()
        if not words or words[-1].strip(END_PUNCTUATION) == self.spec.end:
            raise AskRefused("ended")
        question = {"role": "user", "content": clean(strip_label(full_text(reply, "user"), "user", "message"))}
        sampling = self.spec.sampling.get("assistant", {})
        answer = await session.chat([*messages, question], turn="assistant", **sampling)
        return [question, {"role": "assistant", "content": clean(full_text(answer, "assistant"))}]


def transcript(messages: Sequence[Message]) -> str:
    """The conversation as text, with speakers."""
    return "\n\n".join(f"{SPEAKERS[message['role']]}: {message['content']}" for message in messages)
