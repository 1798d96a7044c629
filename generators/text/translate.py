"""Translations, and back: augmentation by another language (back-translation: Sennrich, Haddow and Birch 2016).

By default `text` is in the drawn language. With `round_trip` it is translated back to the source's language: a
paraphrase.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text, strip_label
from gristmill.generators.text.contract import Ask, Session, pick
from gristmill.generators.text.prompts import column, document_of
from gristmill.generators.text.steps import Steps, StepsSpec
from gristmill.records.templates import template_texts
from gristmill.records.words import text_key


@dataclass(frozen=True)
class TranslateSpec(StepsSpec):
    """Settings of `translate`. Calls: `translation` ({document}); with round_trip, `back` ({translation}).

    Templates may also hold {target}, {language} and columns of the source.
    """

    TEMPLATES = template_texts(__file__, "translate", "translation", "back")
    HOLES = {"translation": ("document",), "back": ("translation",)}

    # languages to translate into, drawn by the row's seed, in the words of the prompt
    targets: tuple[str, ...] = ("French", "German", "Spanish", "Italian", "Portuguese")
    language: str = "English"  # language of the source, in the words of the prompt
    round_trip: bool = False  # translate back too
    document: str = "text"  # source column of the text
    max_words: int = 200  # words after which documents are cut

    def __post_init__(self) -> None:
        column(self.document)
        if not self.targets:
            raise ValueError("targets needs at least one language")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")
        super().__post_init__()

    @property
    def call_names(self) -> list[str]:
        return ["translation", "back"] if self.round_trip else ["translation"]


class Translate(Steps):
    """Keeps the `original`; `text` is the translation, or with `round_trip` the original said again.

    Words that came back as they were are refused as "unchanged".
    """

    kind = "translate"
    answers_follow_asks = True
    revision = 3  # 3: documents in scripts without spaces are cut by characters
    Spec = TranslateSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"document", "target", "language", "translation"})
    spec: TranslateSpec

    def __init__(self, spec: TranslateSpec) -> None:
        super().__init__(spec)
        self.keeps_turns = spec.round_trip
        self._document = column(spec.document)

    @property
    def payload(self) -> list[pa.Field]:
        names = ["original", "target", *(["translation"] if self.spec.round_trip else []), "text"]
        return [pa.field(name, pa.string()) for name in names]

    def fields_read(self) -> list[str]:
        return self.columns_of(self._document)

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        original = document_of(self._document, ask.fields, self.spec.max_words)
        target = pick(self.spec.targets, ask.seed, -2)
        fields = {**ask.fields, "document": original, "target": target, "language": self.spec.language}
        text = strip_label(
            full_text(await self.say(session, "translation", fields), "translation"), "translation", target
        )
        payload = {"original": original, "target": target}
        if text_key(text) == text_key(original):
            raise AskRefused("unchanged")
        if self.spec.round_trip:
            payload["translation"] = text
            back = full_text(await self.say(session, "back", {**fields, "translation": text}), "back")
            text = strip_label(back, "translation", self.spec.language)
            if text_key(text) == text_key(original):
                raise AskRefused("unchanged")
        return {**payload, "text": text}
