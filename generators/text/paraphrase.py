"""Paraphrases: the same meaning in other words, as augmentation of small datasets.

A paraphrase of a labelled text keeps its label (see `source.carry`). The style is drawn by the row's seed, so k samples
of a text differ in style.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import only_text, strip_label
from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation, pick
from gristmill.generators.text.prompts import check_template, column, columns_of, document_of, drawn_columns
from gristmill.records.templates import template_text
from gristmill.records.words import text_key

STYLES = (
    "in different words of the same register",
    "in short, plain sentences",
    "in a formal register, as in a report",
    "in a casual tone, as if telling a friend",
    "with a different sentence structure",
    "as concisely as possible without losing any information",
)
TEMPLATE = template_text(__file__, "paraphrase/template")


@dataclass(frozen=True)
class ParaphraseSpec:
    """Settings of `paraphrase`, which makes one call a row."""

    template: str = TEMPLATE  # prompt; must use {document}, may use {style} and any column of the source
    system: str = ""  # system message
    document: str = "text"  # source column of the text
    styles: tuple[str, ...] = STYLES  # manners of wording, drawn by the row's seed
    max_words: int = 200  # words after which documents are cut

    def __post_init__(self) -> None:
        check_template("template", self.template, "document")
        Template(self.system)
        column(self.document)
        if not self.styles:
            raise ValueError("styles needs at least one entry")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")


class Paraphrase(Method):
    """Keeps the `original` beside the new wording, which is `text`; one that changes nothing is refused."""

    kind = "paraphrase"
    answers_follow_asks = True
    revision = 4  # 4: documents in scripts without spaces are cut by characters
    Spec = ParaphraseSpec

    def __init__(self, spec: ParaphraseSpec) -> None:
        super().__init__(spec)
        self._template = Template(spec.template)
        self._system = Template(spec.system)
        self._document = column(spec.document)

    @property
    def payload(self) -> list[pa.Field]:
        drawn = drawn_columns(("style",), [self._template, self._system])
        return [pa.field(name, pa.string()) for name in ("original", *drawn, "text")]

    def fields_read(self) -> list[str]:
        return columns_of([self._template, self._system], ("document", "style"), self.spec.document)

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        original = document_of(self._document, ask.fields, self.spec.max_words)
        style = pick(self.spec.styles, ask.seed, -2)
        fields = {**ask.fields, "document": original, "style": style}
        reply = await session.chat(conversation(self._system.render(fields), self._template.render(fields)))
        text = strip_label(only_text(reply), "new version", "paraphrase")
        if text_key(text) == text_key(original):
            raise AskRefused("unchanged")
        return {"original": original, "style": style, "text": text}
