"""Names and texts of a recipe in the Markdown of a dataset card: each stays in its place, whatever it holds."""

import json
import re

from gristmill.records.printable import printable_line

# What begins a link, an image, HTML, an entity, code or a cell of a table.
ACTIVE = re.compile(r"[\\`|<>\[\]&]")


def one_line(text: str) -> str:
    """The text in one line, without control characters."""
    return printable_line(" ".join(text.split()))


def prose(text: str) -> str:
    """The text in one line in which Markdown and HTML do nothing: for headings, paragraphs and cells."""
    line = ACTIVE.sub(r"\\\g<0>", one_line(text))
    return re.sub(r"^(\d*)([#+*=~_.)\-])", r"\1\\\2", line)  # no heading, list or rule begins the line


def code(text: str) -> str:
    """The text as code, also in a cell of a table: a code span whose fence does not occur in it."""
    line = one_line(text).replace("|", r"\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def yaml_string(text: str) -> str:
    """The text as a double-quoted scalar of YAML, in one line."""
    return json.dumps(one_line(text), ensure_ascii=False)


def fenced(text: str, language: str = "") -> str:
    """The text as a fenced block of code, whose fence does not occur in it; control characters are escaped."""
    text = "\n".join(printable_line(line) for line in text.split("\n"))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
