"""Translations, and back: augmentation by another language (back-translation: Sennrich, Haddow and Birch 2016).

Forth only, `text` is in the drawn language. With `round_trip` it comes back to the source's language: a paraphrase
whose wording the other language has loosened.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from generators.text.answers import said, unlabelled, whole
from generators.text.contract import Ask, Method, Session, Template, conversation, pick
from generators.text.prompts import checked, column, columns_of, document_of
from records.words import text_key
from stages.engine import AskRefused

TEMPLATE = """Translate the following from {language} into {target}. Keep names and numbers as they are. Write the \
translation alone.

{document}"""
BACK = """Translate the following from {target} into {language}. Keep names and numbers as they are. Write the \
translation alone.

{translation}"""
OWN = ("document", "target", "language")


@dataclass(frozen=True)
class TranslateSpec:
    """One call a row, two with `round_trip`.

    targets: the languages that are drawn from, by the row's seed; in words, as the prompt says them. language: that of
    the source. round_trip: translate back too. template must use {document}, back must use {translation}, what the
    first call wrote; both may use {target}, {language} and any column of the source. document: the source column.
    max_words: longer documents are cut there. system: the system message of both calls.
    """

    targets: tuple[str, ...] = ("French", "German", "Spanish", "Italian", "Portuguese")
    language: str = "English"
    round_trip: bool = False
    template: str = TEMPLATE
    back: str = BACK
    system: str = ""
    document: str = "text"
    max_words: int = 200

    def __post_init__(self) -> None:
        checked("template", self.template, "document")
        checked("back", self.back, "translation")
        Template(self.system)
        column(self.document)
        if not self.targets:
            raise ValueError("targets needs at least one language")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")


class Translate(Method):
    """Keeps the `original`; `text` is the translation, or with `round_trip` the original said again."""

    kind = "translate"
    Spec = TranslateSpec

    def __init__(self, spec: TranslateSpec) -> None:
        super().__init__(spec)
        self.keeps_turns = spec.round_trip
        self._template = Template(spec.template)
        self._back = Template(spec.back)
        self._system = Template(spec.system)
        self._document = column(spec.document)

    @property
    def payload(self) -> list[pa.Field]:
        names = ["original", "target", *(["translation"] if self.spec.round_trip else []), "text"]
        return [pa.field(name, pa.string()) for name in names]

    def fields_read(self) -> list[str]:
        first = columns_of([self._template, self._system], OWN, self.spec.document)
        return columns_of([self._back] if self.spec.round_trip else [], (*OWN, "translation"), *first)

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        original = document_of(self._document, ask.fields, self.spec.max_words)
        target = pick(self.spec.targets, ask.seed, -2)
        fields = {**ask.fields, "document": original, "target": target, "language": self.spec.language}
        system = self._system.render(fields)
        reply = await session.chat(conversation(system, self._template.render(fields)), turn="translation")
        text = unlabelled((whole if self.spec.round_trip else said)(reply), "translation", target)
        payload = {"original": original, "target": target}
        if text_key(text) == text_key(original):
            raise AskRefused("unchanged")
        if self.spec.round_trip:
            payload["translation"] = text
            prompt = self._back.render({**fields, "translation": text})
            reply = await session.chat(conversation(system, prompt), turn="back")
            text = unlabelled(said(reply), "translation", self.spec.language)
            if text_key(text) == text_key(original):
                raise AskRefused("unchanged")
        return {**payload, "text": text}
