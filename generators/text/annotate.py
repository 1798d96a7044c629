"""Labels with a rationale, by k votes: annotation under a JSON schema with the agreement of the votes.

Each vote is a call with its own seed. The most frequent label is the row's (self-consistency: Wang et al. 2022, arXiv
2203.11171), and its share of the votes measures its reliability.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import first_object
from gristmill.generators.text.contract import Ask, Session
from gristmill.generators.text.prompts import column, document_of
from gristmill.generators.text.steps import Steps, StepsSpec, object_of
from gristmill.records.templates import template_text
from gristmill.stages.verify.schemas import check_schema, pattern_identity, validator

VOTE = template_text(__file__, "annotate/vote")
VOTE_BY_SCHEMA = template_text(__file__, "annotate/vote_by_schema")


@dataclass(frozen=True)
class AnnotateSpec(StepsSpec):
    """Settings of `annotate`, whose only call `vote` is made `votes` times at once.

    Its template may hold {document}, {labels} (a list, or the schema) and columns of the source; with `schema` the
    built-in one is another. Sample with a temperature above 0, or all votes are the same. Answers that break the schema
    are no vote.
    """

    TEMPLATES = {"vote": VOTE}
    HOLES = {"vote": ("document",)}

    labels: tuple[str, ...] = ()  # labels to choose from; the answer is {"rationale": text, "label": one of them}
    # JSON Schema of an object with a required property `label`, in place of labels; `rationale` is kept; patterns have
    # the syntax of RE2
    schema: dict[str, Any] | None = None
    document: str = "text"  # source column of the text to label
    max_words: int = 300  # words after which documents are cut
    votes: int = 3  # calls for each row (k); an odd number has fewer ties
    min_agreement: float = 0.0  # share of the k votes below which a row is refused as "agreement"
    rationale_chars: int = 200  # characters of a rationale at most (with labels), so that the JSON ends

    def __post_init__(self) -> None:
        column(self.document)
        if bool(self.labels) == (self.schema is not None):
            raise ValueError("give either 'labels', a list of at least two, or 'schema', a JSON Schema")
        if self.labels and len(set(self.labels)) < max(2, len(self.labels)):
            raise ValueError("labels needs at least two entries, each once")
        if self.schema is not None:
            try:
                check_schema(self.schema)
            except ValueError as error:
                raise ValueError(f"schema: {error}") from None
            if "label" not in self.schema.get("properties", {}) or "label" not in self.schema.get("required", []):
                raise ValueError("schema needs a property 'label' and has to name it in 'required'")
        if self.votes < 1 or self.max_words < 1 or self.rationale_chars < 1:
            raise ValueError("votes, max_words and rationale_chars must be at least 1")
        if not 0 <= self.min_agreement <= 1:
            raise ValueError("min_agreement is a share: it must lie in 0..1")
        super().__post_init__()

    @property
    def wording(self) -> dict[str, str]:
        return {"vote": self.templates.get("vote", VOTE if self.schema is None else VOTE_BY_SCHEMA)}

    def answer_schema(self) -> dict[str, Any]:
        """The JSON schema of a vote. The rationale comes first, so that the label follows from it."""
        if self.schema is not None:
            return self.schema
        return object_of(
            rationale={"type": "string", "maxLength": self.rationale_chars}, label={"enum": list(self.labels)}
        )


class Annotate(Steps):
    """The majority's `label`, its `agreement` over all k votes, the `votes` in their order (null: no vote), and the
    `rationale` of the first vote for it; `text` is what was labelled.

    Of labels with equally many votes the one that was voted for first wins. Without any vote: AskRefused("no_votes").
    """

    kind = "annotate"
    revision = 2  # 2: documents in scripts without spaces are cut by characters
    Spec = AnnotateSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"document", "labels"})
    spec: AnnotateSpec

    def __init__(self, spec: AnnotateSpec) -> None:
        super().__init__(spec)
        self._document = column(spec.document)
        self._schema = spec.answer_schema()
        self._validator: Any = None
        if spec.labels:
            self._labels = "\n".join(f"- {label}" for label in spec.labels)
        else:
            self._labels = json.dumps(self._schema, ensure_ascii=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_validator": None}  # made where it is used, once per process

    @property
    def payload(self) -> list[pa.Field]:
        return [
            pa.field("text", pa.string()),
            pa.field("label", pa.string()),
            pa.field("agreement", pa.float64()),
            pa.field("votes", pa.list_(pa.string())),
            pa.field("rationale", pa.string()),
        ]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), **pattern_identity(self._schema)}

    def fields_read(self) -> list[str]:
        return self.columns_of(self._document)

    def ways(self) -> list[dict[str, int]]:
        return [{"vote": self.spec.votes}]

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [payload["rationale"] or "", payload["label"]]  # the text is of the source

    def answer(self, ask: Ask, payload: Mapping[str, Any]) -> str:
        return str(payload["rationale"] or payload["label"])

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        text = document_of(self._document, ask.fields, self.spec.max_words)
        fields = {**ask.fields, "document": text, "labels": self._labels}
        replies = await self.say_all(session, "vote", [fields] * self.spec.votes, self._schema)
        answers = [self._read(reply.text) for reply in replies]
        votes = [_word(answer["label"]) if answer else None for answer in answers]
        counts = Counter(vote for vote in votes if vote is not None)
        if not counts:
            raise AskRefused("no_votes")
        label, most = counts.most_common(1)[0]  # the first of equals: a Counter keeps the order of the votes
        agreement = most / self.spec.votes
        if agreement < self.spec.min_agreement:
            raise AskRefused("agreement", f"{agreement:.2f}")
        first = answers[votes.index(label)] or {}
        rationale = first.get("rationale")
        return {
            "text": text,
            "label": label,
            "agreement": agreement,
            "votes": votes,
            "rationale": _word(rationale) if rationale is not None else None,
        }

    def _read(self, text: str) -> dict[str, Any] | None:
        if self._validator is None:
            self._validator = validator(self._schema)
        answer = first_object(text)
        try:
            return answer if answer is not None and self._validator.is_valid(answer) else None
        except RecursionError:  # nested too deeply
            return None


def _word(value: Any) -> str:
    """A label as text: itself, or as JSON with sorted keys, so that equal values are one label."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
