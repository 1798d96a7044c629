"""Instruction backtranslation (Li et al. 2023, arXiv 2308.06259): from a document to the instruction that it answers.

The answer is what somebody has really written; the model makes up the question only (self-augmentation, section 2.2)
and then, as a curator, scores the pair from 1 to 5 (self-curation, section 2.3).
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from generators.text.answers import json_object, unlabelled, whole
from generators.text.contract import Ask, Method, Session, Template, conversation
from generators.text.prompts import checked, column, columns_of, document_of
from stages.engine import AskRefused, Reply

TEMPLATE = """Below is the answer of an assistant. Write the request of the user that it answers: one question or \
task, as somebody would put it who has not seen the answer and wants to know just this. Write the request alone.

Answer:
{document}"""
CURATION = """Rate how well the answer fits the request.

1: it does not answer the request, or cannot be understood
2: it answers a small part, or is mostly beside the point
3: it helps, but is incomplete or not written as an answer
4: it answers the request fully and is clearly written
5: it is just what an expert would answer, with nothing missing and nothing beside the point

Request:
{instruction}

Answer:
{document}

Answer with JSON: {{"score": a number from 1 to 5}}."""
LOW, HIGH = 1, 5
SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": LOW, "maximum": HIGH}},
    "required": ["score"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class BacktranslateSpec:
    """One call a row, two where it is curated.

    template must use {document} and may use any column of the source. document: the source column. max_words: longer
    documents are cut there. min_words: an instruction with fewer is refused as "short". system: the system message.
    curate: score the pair by a second call, into the column `score`; a call without a score is refused as "no_score".
    curation, its prompt, must use {instruction}, what the first call wrote, and {document}. min_score: pairs below it
    are refused as "score"; the paper keeps 4 and more, later only 5. None: all are kept with their scores.
    """

    template: str = TEMPLATE
    curation: str = CURATION
    system: str = ""
    document: str = "text"
    max_words: int = 300
    min_words: int = 3
    curate: bool = True
    min_score: int | None = None

    def __post_init__(self) -> None:
        checked("template", self.template, "document")
        checked("curation", self.curation, "instruction", "document")
        Template(self.system)
        column(self.document)
        if self.max_words < 1 or self.min_words < 1:
            raise ValueError("max_words and min_words must be at least 1")
        if self.min_score is not None and not self.curate:
            raise ValueError("min_score needs curate = true")
        if self.min_score is not None and not LOW <= self.min_score <= HIGH:
            raise ValueError(f"min_score must lie in {LOW}..{HIGH}")


class Backtranslate(Method):
    """`instruction` is the model's, `output` the document (as far as the model saw it), `text` both."""

    kind = "backtranslate"
    Spec = BacktranslateSpec

    def __init__(self, spec: BacktranslateSpec) -> None:
        super().__init__(spec)
        self.keeps_turns = spec.curate
        self._template = Template(spec.template)
        self._curation = Template(spec.curation)
        self._system = Template(spec.system)
        self._document = column(spec.document)

    @property
    def payload(self) -> list[pa.Field]:
        score = [pa.field("score", pa.int32())] if self.spec.curate else []
        return [
            pa.field("instruction", pa.string()),
            pa.field("output", pa.string()),
            *score,
            pa.field("text", pa.string()),
        ]

    def fields_read(self) -> list[str]:
        first = columns_of([self._template, self._system], ("document",), self.spec.document)
        return columns_of([self._curation] if self.spec.curate else [], ("document", "instruction"), *first)

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        document = document_of(self._document, ask.fields, self.spec.max_words)
        fields = {**ask.fields, "document": document}
        system = self._system.render(fields)
        reply = await session.chat(conversation(system, self._template.render(fields)), turn="instruction")
        instruction = unlabelled(whole(reply), "request", "instruction", "question", "user")
        if len(instruction.split()) < self.spec.min_words:
            raise AskRefused("short", instruction)
        payload = {"instruction": instruction, "output": document, "text": f"{instruction}\n\n{document}"}
        if not self.spec.curate:
            return payload
        prompt = self._curation.render({**fields, "instruction": instruction})
        score = read_score(await session.chat(conversation(system, prompt), SCORE, turn="score"))
        if score is None:
            raise AskRefused("no_score")
        if self.spec.min_score is not None and score < self.spec.min_score:
            raise AskRefused("score", str(score))
        return {**payload, "score": score}


def read_score(reply: Reply) -> int | None:
    """The score in a curator's answer; None when there is none on the scale."""
    score = (json_object(reply.text) or {}).get("score")
    return score if isinstance(score, int) and not isinstance(score, bool) and LOW <= score <= HIGH else None
