"""Rephrasing of real documents after WRAP, Nemotron-CC and FinePhrase: the facts stay, the form changes.

Long documents are rephrased chunk by chunk, each with the end of the rewriting so far before it, as Kimi K2 does (Kimi
Team 2025, arXiv 2507.20534, section 2.2): what a model writes in one answer is shorter than a long document.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.generators.text import chunks
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation, pick
from gristmill.generators.text.prompts import check_template, column, columns_of, render
from gristmill.records.spec import later
from gristmill.records.templates import template_text, template_texts

WRAP = ("faq", "tutorial", "table", "wikipedia")  # after WRAP and FinePhrase
NEMOTRON = ("qa", "distill", "extract_knowledge", "knowledge_list")  # Nemotron-CC (Su et al. 2024), section 2.3
TEMPLATES = template_texts(__file__, "rephrase", *WRAP, *NEMOTRON)
CONTINUATION = template_text(__file__, "rephrase/continuation") + "\n\n"  # the prompt of the chunk follows


def check_styles(styles: Iterable[str], templates: dict[str, str]) -> None:
    """Raise ValueError for a style without a template, and for a template without {document}."""
    all_templates = {**TEMPLATES, **templates}
    for style in styles:
        if style not in all_templates:
            raise ValueError(f"style '{style}' has no template (known: {', '.join(sorted(all_templates))})")
    for style, text in templates.items():
        if "document" not in Template(text).names:
            raise ValueError(f"templates.{style} has no {{document}}")


@dataclass(frozen=True)
class RephraseSpec:
    """Settings of `rephrase`.

    Styles with a built-in template: faq, tutorial, table, wikipedia; qa, distill, extract_knowledge, knowledge_list
    (Nemotron-CC).
    """

    # styles, drawn by the row's seed; each needs a built-in template or an entry in `templates`
    styles: tuple[str, ...] = WRAP
    # templates of further styles, or other words for the built-in ones; each must hold {document}
    templates: dict[str, str] = field(default_factory=dict)
    system: str = ""  # system message
    document: str = "text"  # source column of the text
    max_words: int = 600  # words after which documents are cut
    # words of a chunk; a longer document is rephrased chunk by chunk (raise max_words with it); 0: in one call
    chunk_words: int = later(0)
    context_words: int = later(80)  # words of the rewriting so far that the call of the next chunk shows
    # what stands before the prompt of the second and later chunks; it must hold {before}, may hold {part} and {parts}
    continuation: str = later(CONTINUATION)

    def __post_init__(self) -> None:
        Template(self.system)
        column(self.document)
        if not self.styles:
            raise ValueError("styles needs at least one entry")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")
        check_styles(self.styles, self.templates)
        check_template("continuation", self.continuation, "before")
        if self.chunk_words < 0 or self.context_words < 1:
            raise ValueError("chunk_words must not be negative, context_words at least 1")
        if not self.chunk_words and (self.context_words, self.continuation) != (80, CONTINUATION):
            raise ValueError("context_words and continuation have no effect without chunk_words")


class Rephrase(Method):
    """Draws a style for the document and keeps the rewriting; `source_id` tells which document it was.

    With `chunk_words` a row also keeps the `original` and its `parts`, so that a fidelity stage can compare them. A
    document of one chunk is asked for as it is without `chunk_words`.
    """

    kind = "rephrase"
    answers_follow_asks = True
    revision = 2  # 2: documents in scripts without spaces are cut by characters
    Spec = RephraseSpec

    def __init__(self, spec: RephraseSpec) -> None:
        super().__init__(spec)
        templates = {**TEMPLATES, **spec.templates}
        self._templates = {style: Template(templates[style]) for style in spec.styles}
        self._system = Template(spec.system)
        self._document = column(spec.document)
        self._continuation = Template(spec.continuation)
        self.keeps_turns = bool(spec.chunk_words)

    @property
    def payload(self) -> list[pa.Field]:
        evidence = [pa.field("original", pa.string()), chunks.PARTS] if self.spec.chunk_words else []
        return [pa.field("style", pa.string()), *evidence, pa.field("text", pa.string())]

    def fields_read(self) -> list[str]:
        holes = ("document", "style")
        names = columns_of([*self._templates.values(), self._system], holes, self.spec.document)
        more = columns_of([self._continuation], (*holes, "before", "part", "parts")) if self.spec.chunk_words else []
        return list(dict.fromkeys([*names, *more]))

    def most_tokens(self, max_tokens: int) -> int | None:
        size = self.spec.chunk_words
        return max_tokens * (chunks.most_chunks(self.spec.max_words, size) if size else 1)

    def identity(self) -> dict[str, Any]:
        # Includes the built-in prompts: rows change when a release rewords them.
        continuation = {"continuation": self.spec.continuation} if self.spec.chunk_words else {}
        return {
            **super().identity(),
            "templates": {s: t.text for s, t in self._templates.items()},
            **continuation,
        }

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return chunks.parts_of(payload) if self.spec.chunk_words else super().kept_texts(ask, payload)

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        style = pick(self.spec.styles, ask.seed, -2)
        document = chunks.first_words(render(self._document, ask.fields), self.spec.max_words)
        if self.spec.chunk_words:
            return {"style": style, **await self._by_chunks(ask, session, document, style)}
        reply = await session.chat(self._prompt(ask, document, style))
        return {"style": style, "text": reply.text.strip()}

    def _prompt(self, ask: Ask, document: str, style: str, **more: Any) -> Any:
        """The messages for a document, or for a chunk that goes on after the text `before`."""
        fields = {**ask.fields, "document": document, "style": style}
        before = self._continuation.render({**fields, **more}) if more else ""
        return conversation(self._system.render(fields), before + self._templates[style].render(fields))

    async def _by_chunks(self, ask: Ask, session: Session, document: str, style: str) -> dict[str, Any]:
        """The payload but for the style. Raises AskRefused("cut_chunk") and ("empty_chunk")."""
        texts, spans, at = list[str](), list[tuple[int, int]](), 0
        parts = chunks.chunks(document, self.spec.chunk_words)
        for number, chunk in enumerate(parts, 1):
            more: dict[str, Any] = {}
            if texts:
                before = chunks.last_words(texts[-1], self.spec.context_words)
                more = {"before": before, "part": number, "parts": len(parts)}
            shown = chunk.rstrip() if len(parts) > 1 else chunk
            reply = await session.chat(self._prompt(ask, shown, style, **more), turn="chunk")
            texts.append(full_text(reply, "chunk"))
            spans.append((at, at + len(chunk)))
            at += len(chunk)
        text, places = chunks.stitch(texts, spans)
        return {"original": document, "parts": places, "text": text}
