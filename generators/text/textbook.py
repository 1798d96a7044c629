"""Textbook passages after Phi and Cosmopedia: one topic, many audiences and styles.

Varied prompts keep a synthetic textbook from repeating itself: each row draws an audience and a style from its seed, so
k samples of a topic are k different passages.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation, pick
from gristmill.generators.text.prompts import column, columns_of, drawn_columns, render
from gristmill.records.templates import template_text

AUDIENCES = (
    "young children",
    "middle school students",
    "high school students",
    "first-year college students",
    "graduate students",
    "researchers from a neighbouring field",
    "professionals who need the topic at work",
    "curious adults without prior knowledge",
    "teachers preparing a lesson",
    "self-taught learners",
)
STYLES = (
    "a textbook section that starts from a definition",
    "a textbook section built around one worked example",
    "a step-by-step tutorial",
    "an explanation built on an everyday analogy",
    "a short history of how an idea developed",
    "a lesson that corrects the most common misconceptions",
    "the transcript of a friendly lecture",
    "a blog post with practical advice",
    "a dialogue between a teacher and a student",
    "a comparison of the topic with a closely related one",
    "an encyclopedia article",
    "a case study of a real situation",
)
TEMPLATE = template_text(__file__, "textbook/template")


@dataclass(frozen=True)
class TextbookSpec:
    """Settings of `textbook`."""

    template: str = TEMPLATE  # prompt; may use {topic}, {audience}, {style} and any column of the source
    system: str = ""  # system message
    topic: str = "topic"  # source column of the topic
    audiences: tuple[str, ...] = AUDIENCES  # audiences, drawn by the row's seed
    styles: tuple[str, ...] = STYLES  # styles, drawn by the row's seed

    def __post_init__(self) -> None:
        Template(self.template)
        Template(self.system)
        column(self.topic)
        if not self.audiences or not self.styles:
            raise ValueError("audiences and styles need at least one entry each")


class Textbook(Method):
    """Draws an audience and a style for the topic, and keeps the passage."""

    kind = "textbook"
    revision = 2
    Spec = TextbookSpec

    def __init__(self, spec: TextbookSpec) -> None:
        super().__init__(spec)
        self._template = Template(spec.template)
        self._system = Template(spec.system)
        self._topic = column(spec.topic)

    @property
    def payload(self) -> list[pa.Field]:
        drawn = drawn_columns(("audience", "style"), [self._template, self._system])
        return [pa.field(name, pa.string()) for name in ("prompt", "topic", *drawn, "text")]

    def fields_read(self) -> list[str]:
        return columns_of([self._template, self._system], ("topic", "audience", "style"), self.spec.topic)

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        choices = {
            "topic": render(self._topic, ask.fields),
            "audience": pick(self.spec.audiences, ask.seed, -2),
            "style": pick(self.spec.styles, ask.seed, -3),
        }
        fields = {**ask.fields, **choices}
        prompt = self._template.render(fields)
        reply = await session.chat(conversation(self._system.render(fields), prompt))
        return {"prompt": prompt, **choices, "text": reply.text.strip()}
