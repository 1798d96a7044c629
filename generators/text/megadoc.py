"""Megadocs: several rephrasings of one document stitched into one long text.

Data-efficient pre-training by scaling synthetic megadocs (arXiv 2603.18534) trains on the rephrasings of a document as
one long document instead of many short ones: at 32 rephrasings a document a real token is worth 1.80 instead of 1.48,
and the loss at long contexts falls most. There every rephrasing has the style of an encyclopedia, at temperature 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text import chunks
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation, mix
from gristmill.generators.text.prompts import column, columns_of, document_of
from gristmill.generators.text.rephrase import TEMPLATES, check_styles
from gristmill.records.words import text_key

MAX_REPHRASES = 256


@dataclass(frozen=True)
class MegadocSpec:
    """Settings of `megadoc`, which makes `rephrases` calls a row. Styles are those of `rephrase`."""

    rephrases: int = 8  # rephrasings of a document, at most 256; the paper's gain still grows at 32
    # styles, each used equally often, in an order drawn by the row's seed; ["wikipedia"] is the paper's choice
    styles: tuple[str, ...] = ("wikipedia", "faq", "tutorial", "table")
    # templates of further styles, or other words for the built-in ones; each must hold {document}
    templates: dict[str, str] = field(default_factory=dict)
    system: str = ""  # system message
    document: str = "text"  # source column of the text
    max_words: int = 600  # words after which documents are cut
    separator: str = "\n\n"  # text between two rephrasings
    original: Literal["none", "first", "last"] = "none"  # where the document itself stands among its rephrasings
    min_rephrases: int = 2  # different rephrasings that a row needs; repeated and cut off ones are left out

    def __post_init__(self) -> None:
        Template(self.system)
        column(self.document)
        check_styles(self.styles, self.templates)
        if not self.styles:
            raise ValueError("styles needs at least one entry")
        if not 1 <= self.min_rephrases <= self.rephrases <= MAX_REPHRASES:
            raise ValueError(f"rephrases must lie between min_rephrases (at least 1) and {MAX_REPHRASES}")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")


class Megadoc(Method):
    """Stitches rephrasings of a document into `text`; `styles` names them in order, `parts` says where each lies.

    A rephrasing that is cut off or empty, or repeats the document or another one, is left out. A row with fewer than
    `min_rephrases` is refused as "few_rephrases".
    """

    kind = "megadoc"
    revision = 1
    answers_follow_asks = True
    keeps_turns = True
    Spec = MegadocSpec
    spec: MegadocSpec

    def __init__(self, spec: MegadocSpec) -> None:
        super().__init__(spec)
        templates = {**TEMPLATES, **spec.templates}
        self._templates = {style: Template(templates[style]) for style in spec.styles}
        self._system = Template(spec.system)
        self._document = column(spec.document)

    @property
    def payload(self) -> list[pa.Field]:
        text = pa.string()
        return [pa.field("styles", pa.list_(text)), pa.field("original", text), chunks.PARTS, pa.field("text", text)]

    def fields_read(self) -> list[str]:
        return columns_of([*self._templates.values(), self._system], ("document", "style"), self.spec.document)

    def most_tokens(self, max_tokens: int) -> int | None:
        return self.spec.rephrases * max_tokens

    def identity(self) -> dict[str, Any]:
        # Includes the built-in prompts: rows change when a release rewords them.
        return {**super().identity(), "templates": {s: t.text for s, t in self._templates.items()}}

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        texts = chunks.parts_of(payload)
        return {"none": texts, "first": texts[1:], "last": texts[:-1]}[self.spec.original]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        document = document_of(self._document, ask.fields, self.spec.max_words)
        styles = self._styles(ask.seed)
        prompts = []
        for style in styles:
            fields = {**ask.fields, "document": document, "style": style}
            prompts.append(conversation(self._system.render(fields), self._templates[style].render(fields)))
        texts = dict[bytes, tuple[str, str]]()  # (style, rephrasing) by key, the first of equals
        for style, reply in zip(styles, await session.chats(prompts, turn="rephrase")):
            try:
                text = full_text(reply, "rephrase")
            except AskRefused:
                continue
            texts.setdefault(text_key(text), (style, text))
        texts.pop(text_key(document), None)
        if len(texts) < self.spec.min_rephrases:
            raise AskRefused("few_rephrases", str(len(texts)))
        parts = list(texts.values())
        if self.spec.original != "none":
            parts.insert(0 if self.spec.original == "first" else len(parts), ("original", document))
        whole = [(0, len(document))] * len(parts)
        text, places = chunks.stitch([part for _, part in parts], whole, self.spec.separator)
        return {"styles": [style for style, _ in parts], "original": document, "parts": places, "text": text}

    def _styles(self, seed: int) -> list[str]:
        """The style of each rephrasing: all styles in a drawn order, again and again."""
        order = sorted(range(len(self.spec.styles)), key=lambda number: mix(seed, -2 - number))
        return [self.spec.styles[order[at % len(order)]] for at in range(self.spec.rephrases)]
