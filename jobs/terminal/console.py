"""What verbs print goes through here: no control character of a row, a name or an error reaches the terminal.

A test keeps other modules of jobs/ from printing themselves.
"""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from gristmill.records.masking.masks import masked_text
from gristmill.records.printable import json_text, printable, printable_line


class SafeConsole(Console):
    """A console that shows texts as they are: without markup, emoji codes and highlights, and printable.

    Style sequences of rich itself pass. A string is one line; a `rich.text.Text` may have several.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def print_line(self, text: str, style: str | None = None) -> None:
        """Print one line, however long, for people and for pipes."""
        self.print(printable_line(text), style=style, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable_line(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            is_text = not segment.control and segment.text.isprintable()
            yield segment if is_text or segment.control else Segment(printable(segment.text), segment.style)


def open_console(is_error: bool = False) -> SafeConsole:
    """A console on stdout, or on stderr for what is no result."""
    return SafeConsole(stderr=is_error)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON to stdout: no control characters, and the same values when it is read back."""
    _write(sys.stdout, json_text(value, indent))


def print_line(text: str) -> None:
    """Print one line to stdout, at once."""
    _write(sys.stdout, printable_line(text))


def print_text(text: str) -> None:
    """Print lines to stdout."""
    _write(sys.stdout, printable(text))


def print_error(text: str) -> None:
    """Print lines to stderr, without secrets."""
    _write(sys.stderr, printable(masked_text(text)))


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()
