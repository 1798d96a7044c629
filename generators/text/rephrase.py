"""Rephrasing of real documents after WRAP, Nemotron-CC and FinePhrase: the facts stay, the form changes."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation, pick
from gristmill.generators.text.prompts import column, columns_of, first_words, render

CLOSING = "Use only what the document says. Write the result alone, without any remark before or after it."
TEMPLATES = {
    "faq": f"Rewrite the following document as a list of questions and answers, from the basic to the advanced. "
    f"Each answer is one or more full sentences. {CLOSING}\n\nDocument:\n{{document}}",
    "tutorial": f"Rewrite the following document as a clear tutorial that leads a reader through it step by step. "
    f"{CLOSING}\n\nDocument:\n{{document}}",
    "table": f"Rewrite the following document as a Markdown table of its facts, followed by one question about the "
    f"table and its answer in full sentences. {CLOSING}\n\nDocument:\n{{document}}",
    "wikipedia": f"Rewrite the following document in clear, neutral, high-quality English, like an article in an "
    f"encyclopedia. {CLOSING}\n\nDocument:\n{{document}}",
    # The forms of Nemotron-CC (Su et al. 2024, section 2.3) beside the encyclopedia's.
    "qa": f"Write up to eight questions about the following document, each with its answer below it. Let them be of "
    f"different kinds: yes or no, what and who, why and how, comparisons, and one with a choice of four. Begin each "
    f"question with 'Question:' and each answer with 'Answer:'. {CLOSING}\n\nDocument:\n{{document}}",
    "distill": f"Write the following document again, shorter and clearer. Keep every fact, number and name that "
    f"matters and the author's own terms; leave out repetition and what is beside the point. {CLOSING}\n\n"
    f"Document:\n{{document}}",
    "extract_knowledge": f"Write down what can be learnt about the world from the following document: facts, causes "
    f"and explanations, in connected paragraphs as in a textbook. Leave out what is about the document itself, its "
    f"author or its readers. {CLOSING}\n\nDocument:\n{{document}}",
    "knowledge_list": f"List what the following document tells, as a Markdown list with one fact to an item. Each item "
    f"is a full sentence that can be understood without the document. {CLOSING}\n\nDocument:\n{{document}}",
}


@dataclass(frozen=True)
class RephraseSpec:
    """Settings of `rephrase`.

    Styles with a built-in template: faq, tutorial, table, wikipedia; qa, distill, extract_knowledge, knowledge_list
    (Nemotron-CC).
    """

    # styles, drawn by the row's seed; each needs a built-in template or an entry in `templates`
    styles: tuple[str, ...] = ("faq", "tutorial", "table", "wikipedia")
    # templates of further styles, or other words for the built-in ones; each must hold {document}
    templates: dict[str, str] = field(default_factory=dict)
    system: str = ""  # system message
    document: str = "text"  # source column of the text
    max_words: int = 600  # words after which documents are cut

    def __post_init__(self) -> None:
        Template(self.system)
        column(self.document)
        templates = {**TEMPLATES, **self.templates}
        if not self.styles:
            raise ValueError("styles needs at least one entry")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")
        for style in self.styles:
            if style not in templates:
                raise ValueError(f"style '{style}' has no template (known: {', '.join(sorted(templates))})")
        for style, text in self.templates.items():
            if "document" not in Template(text).names:
                raise ValueError(f"templates.{style} has no {{document}}")


class Rephrase(Method):
    """Draws a style for the document and keeps the rewriting; `source_id` tells which document it was."""

    kind = "rephrase"
    answers_follow_asks = True
    revision = 1
    Spec = RephraseSpec

    def __init__(self, spec: RephraseSpec) -> None:
        super().__init__(spec)
        templates = {**TEMPLATES, **spec.templates}
        self._templates = {style: Template(templates[style]) for style in spec.styles}
        self._system = Template(spec.system)
        self._document = column(spec.document)

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field("style", pa.string()), pa.field("text", pa.string())]

    def fields_read(self) -> list[str]:
        return columns_of([*self._templates.values(), self._system], ("document", "style"), self.spec.document)

    def identity(self) -> dict[str, Any]:
        # Includes the built-in prompts: rows change when a release rewords them.
        return {**super().identity(), "templates": {s: t.text for s, t in self._templates.items()}}

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        style = pick(self.spec.styles, ask.seed, -2)
        document = first_words(render(self._document, ask.fields), self.spec.max_words)
        fields = {**ask.fields, "document": document, "style": style}
        prompt = self._templates[style].render(fields)
        reply = await session.chat(conversation(self._system.render(fields), prompt))
        return {"style": style, "text": reply.text.strip()}
