"""Renders HTML pages: a verb's template extends base.html of this folder, which includes page.css."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gristmill.records.printable import printable


def render(template: Path, facts: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]]) -> str:
    """The page of `template` filled with `facts`. Raises jinja2.UndefinedError for a name that `facts` lacks.

    Text is escaped, and control characters in it become visible. A figure must be a markupsafe.Markup. Templates may
    extend or include the files of this folder.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return printable(environment.get_template(template.name).render(**facts))  # its figures too
