"""Preparing prompts: templates with required holes, and documents cut to length."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.chunks import first_words
from gristmill.generators.text.contract import Template


def check_template(key: str, text: str, *holes: str) -> Template:
    """The template of a recipe's `key`. Raises ValueError for bad braces and for a missing hole."""
    template = Template(text)
    for hole in holes:
        if hole not in template.names:
            raise ValueError(f"{key} has no {{{hole}}}")
    return template


def columns_of(templates: Sequence[Template], method_holes: Collection[str], *more: str) -> list[str]:
    """The source columns that `more` and `templates` name, without the holes that the method fills itself."""
    return list(dict.fromkeys([*more, *(n for t in templates for n in t.names if n not in method_holes)]))


def drawn_columns(holes: Sequence[str], templates: Iterable[Template]) -> list[str]:
    """The drawn holes that a template uses. Only they tell something about the row, and become columns."""
    used = {name for template in templates for name in template.names}
    return [name for name in holes if name in used]


def column(name: str) -> Template:
    """A template of a single source column of any type. Raises ValueError for an impossible name."""
    if not name.strip() or "{" in name or "}" in name:
        raise ValueError(f"'{name}' is not the name of a column")
    return Template(f"{{{name}}}")


def render(template: Template, fields: Mapping[str, Any]) -> str:
    """The filled template. Raises AskRefused("missing_field") when it is blank."""
    text = template.render(fields)
    if not text.strip():
        raise AskRefused("missing_field", template.text)
    return text


def document_of(template: Template, fields: Mapping[str, Any], max_words: int) -> str:
    """The document of a row, stripped and cut to `max_words` (see `first_words`); see `render`."""
    return first_words(render(template, fields), max_words).strip()
