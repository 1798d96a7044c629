"""Questions and texts across two related documents, after WRAP++ (arXiv 2604.06829).

What relates two documents is in neither of them alone, so a model that reads rewritings of single documents never sees
it. `[pairs]` of the recipe relates rows; see records/pairs.py.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text import chunks
from gristmill.generators.text.answers import only_text
from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation, pick
from gristmill.generators.text.prompts import check_template, column, columns_of, document_of, render
from gristmill.records.pairs import OTHER, OTHER_ID
from gristmill.records.spec import nearest
from gristmill.records.templates import template_texts

FORMS = template_texts(__file__, "cross_document", "qa", "comparison", "article")


@dataclass(frozen=True)
class CrossDocumentSpec:
    """Settings of `cross_document`, which makes one call a row. Built-in forms: qa, comparison, article."""

    forms: tuple[str, ...] = ("qa",)  # what is written, drawn by the row's seed
    # templates of further forms, or other words for the built-in ones; each must hold {document} and {other}
    templates: dict[str, str] = field(default_factory=dict)
    system: str = ""  # system message
    document: str = "text"  # column of the text, in both rows
    # column of the source row that holds the second text; "": the text of the row's partner (see [pairs])
    other: str = ""
    max_words: int = 400  # words after which each of the two documents is cut

    def __post_init__(self) -> None:
        Template(self.system)
        column(self.document)
        if self.other:
            column(self.other)
        if not self.forms:
            raise ValueError("forms needs at least one entry")
        for form in self.forms:
            if form not in self.wording:
                raise ValueError(f"form '{form}' has no template{nearest(form, self.wording)}")
        for form, text in self.templates.items():
            check_template(f"templates.{form}", text, "document", "other")
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")

    @property
    def wording(self) -> dict[str, str]:
        """The template of each form."""
        return {**FORMS, **self.templates}


class CrossDocument(Method):
    """Shows the model two related documents; the row names both, as `source_id` and `other_source_id`.

    A row without a partner is refused as "no_partner".
    """

    kind = "cross_document"
    revision = 1
    Spec = CrossDocumentSpec
    holes: ClassVar[tuple[str, ...]] = ("document", "other", "form")
    spec: CrossDocumentSpec

    def __init__(self, spec: CrossDocumentSpec) -> None:
        super().__init__(spec)
        self._templates = {form: Template(spec.wording[form]) for form in spec.forms}
        self._system = Template(spec.system)
        self._document = column(spec.document)
        self.reads_pairs = not spec.other

    @property
    def payload(self) -> list[pa.Field]:
        partner = [] if self.spec.other else [OTHER_ID]
        return [pa.field(name, pa.string()) for name in ("form", *partner, "text")]

    def fields_read(self) -> list[str]:
        more = [self.spec.other] if self.spec.other else []
        return columns_of([*self._templates.values(), self._system], self.holes, self.spec.document, *more)

    def identity(self) -> dict[str, Any]:
        # Includes the built-in prompts: rows change when a release rewords them.
        return {**super().identity(), "templates": {f: t.text for f, t in self._templates.items()}}

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        spec, fields = self.spec, ask.fields
        form = pick(spec.forms, ask.seed, -2)
        document = document_of(self._document, fields, spec.max_words)
        if spec.other:
            other = render(column(spec.other), fields)
        elif OTHER_ID in fields:  # `other` alone may be a column of the source
            other = render(self._document, fields[OTHER])
        else:
            raise AskRefused("no_partner")
        other = chunks.first_words(other, spec.max_words).strip()
        values = {**fields, "document": document, "other": other, "form": form}
        reply = await session.chat(conversation(self._system.render(values), self._templates[form].render(values)))
        partner_id = {} if spec.other else {OTHER_ID: fields[OTHER_ID]}
        return {"form": form, **partner_id, "text": only_text(reply)}
