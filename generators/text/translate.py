"""Translations, and back: augmentation by another language (back-translation: Sennrich, Haddow and Birch 2016).

Forth only, `text` is in the drawn language. With `round_trip` it comes back to the source's language: a paraphrase
whose wording the other language has loosened.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.vllm import AskRefused
from gristmill.generators.text.answers import unlabelled, whole
from gristmill.generators.text.contract import Ask, Session, pick
from gristmill.generators.text.prompts import column, document_of
from gristmill.generators.text.steps import Steps, StepsSpec
from gristmill.records.words import text_key

TRANSLATION = """Translate the following from {language} into {target}. Keep names and numbers as they are. Write the \
translation alone.

{document}"""
BACK = """Translate the following from {target} into {language}. Keep names and numbers as they are. Write the \
translation alone.

{translation}"""


@dataclass(frozen=True)
class TranslateSpec(StepsSpec):
    """Calls, and what their templates may hold: `translation` ({document}) and, with round_trip, `back`
    ({translation}); both {target} and {language} too, and columns of the source.

    targets: the languages that are drawn from, by the row's seed; in words, as the prompt says them. language: that of
    the source. round_trip: translate back too. document: the source column. max_words: longer documents are cut there.
    """

    TEMPLATES = {"translation": TRANSLATION, "back": BACK}
    HOLES = {"translation": ("document",), "back": ("translation",)}

    targets: tuple[str, ...] = ("French", "German", "Spanish", "Italian", "Portuguese")
    language: str = "English"
    round_trip: bool = False
    document: str = "text"
    max_words: int = 200

    def __post_init__(self) -> None:
        column(self.document)
        if not self.targets:
            raise ValueError("targets needs at least one language")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")
        super().__post_init__()

    @property
    def used(self) -> list[str]:
        return ["translation", "back"] if self.round_trip else ["translation"]


class Translate(Steps):
    """Keeps the `original`; `text` is the translation, or with `round_trip` the original said again.

    Words that came back as they were are refused as "unchanged".
    """

    kind = "translate"
    Spec = TranslateSpec
    own: ClassVar[frozenset[str]] = frozenset({"document", "target", "language", "translation"})
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
        text = unlabelled(whole(await self.say(session, "translation", fields), "translation"), "translation", target)
        payload = {"original": original, "target": target}
        if text_key(text) == text_key(original):
            raise AskRefused("unchanged")
        if self.spec.round_trip:
            payload["translation"] = text
            back = whole(await self.say(session, "back", {**fields, "translation": text}), "back")
            text = unlabelled(back, "translation", self.spec.language)
            if text_key(text) == text_key(original):
                raise AskRefused("unchanged")
        return {**payload, "text": text}
