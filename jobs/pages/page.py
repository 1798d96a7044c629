"""The one environment that renders HTML pages: templates of a verb beside the shared head and style sheet."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def render(template: Path, facts: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]]) -> str:
    """The page that `template` makes of `facts`. Undefined names raise, so that a page never shows a hole.

    Templates may extend or include the files of this folder.
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
    return environment.get_template(template.name).render(**facts)
