"""Instruction backtranslation (Li et al. 2023, arXiv 2308.06259): from a document to the instruction that it answers.

The answer is a real document. The model writes only the question (self-augmentation, section 2.2) and then scores the
pair from 1 to 5 (self-curation, section 2.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text, strip_label
from gristmill.generators.text.contract import Ask, Session
from gristmill.generators.text.prompts import column, document_of
from gristmill.generators.text.steps import Steps, StepsSpec, object_of, read_object
from gristmill.records.templates import template_texts

LOW, HIGH = 1, 5


@dataclass(frozen=True)
class BacktranslateSpec(StepsSpec):
    """Settings of `backtranslate`. Calls: `instruction` ({document}); with curate, `score` ({instruction}, {document}).

    Templates may also hold columns of the source. `score` is answered in JSON, {"score": 1 to 5}; an answer that is no
    score is refused as "unreadable_score" or "cut_score".
    """

    TEMPLATES = template_texts(__file__, "backtranslate", "instruction", "score")
    HOLES = {"instruction": ("document",), "score": ("instruction", "document")}

    document: str = "text"  # source column of the document that becomes the answer
    max_words: int = 300  # words after which documents are cut
    min_words: int = 3  # words of an instruction below which it is refused as "short"
    curate: bool = True  # rate the pair by a second call, into the column `score` (1 to 5)
    # score below which a pair is refused as "score" (the paper: 4, later 5); default: none
    min_score: int | None = None

    def __post_init__(self) -> None:
        column(self.document)
        if self.max_words < 1 or self.min_words < 1:
            raise ValueError("max_words and min_words must be at least 1")
        if self.min_score is not None and not self.curate:
            raise ValueError("min_score needs curate = true")
        if self.min_score is not None and not LOW <= self.min_score <= HIGH:
            raise ValueError(f"min_score must lie in {LOW}..{HIGH}")
        super().__post_init__()

    @property
    def call_names(self) -> list[str]:
        return ["instruction", "score"] if self.curate else ["instruction"]


class Backtranslate(Steps):
    """`instruction` is the model's, `output` the document (as far as the model saw it), `text` both."""

    kind = "backtranslate"
    revision = 2  # 2: documents in scripts without spaces are cut by characters
    Spec = BacktranslateSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"document", "instruction"})
    spec: BacktranslateSpec

    def __init__(self, spec: BacktranslateSpec) -> None:
        super().__init__(spec)
        self.keeps_turns = spec.curate
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
        return self.columns_of(self._document)

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [payload["instruction"]]  # the output is of the source

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        document = document_of(self._document, ask.fields, self.spec.max_words)
        fields = {**ask.fields, "document": document}
        reply = full_text(await self.say(session, "instruction", fields), "instruction")
        instruction = strip_label(reply, "request", "instruction", "question", "user")
        if len(instruction.split()) < self.spec.min_words:
            raise AskRefused("short", instruction)
        payload = {"instruction": instruction, "output": document, "text": f"{instruction}\n\n{document}"}
        if not self.spec.curate:
            return payload
        scale = object_of(score={"type": "integer", "minimum": LOW, "maximum": HIGH})
        answer = await self.say(session, "score", {**fields, "instruction": instruction}, scale)
        score = read_object(answer, "score", score=int)["score"]
        if not LOW <= score <= HIGH:
            raise AskRefused("unreadable_score", str(score))
        if self.spec.min_score is not None and score < self.spec.min_score:
            raise AskRefused("score", str(score))
        return {**payload, "score": score}
