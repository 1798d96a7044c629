"""Tasks and tests are read as by the plain forms, which are quadratic in an answer."""

import ast
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.text.programs import Source, parse_python
from gristmill.generators.text.task_filters import task_of
from tests.profiles import scaled

LABEL = re.compile(r"^(?:\**(?:new |next )?task\s*\d*\s*[:.)-]\**|\d+\s*[.):]|[-•])\s*", re.IGNORECASE)
QUOTES = re.compile(r"(\*\*|[\"'*_`])(.+)\1")
TASK_PIECES = (
    "task",
    "Task ",
    "new ",
    "next",
    "1",
    "12",
    " ",
    "  ",
    ":",
    ".",
    ")",
    "-",
    "•",
    "*",
    "**",
    '"',
    "'",
    "_",
    "`",
)
LINES = st.lists(st.sampled_from((*TASK_PIECES, "sing", "\n", "\u3000")), max_size=12).map("".join)


def plain_task_of(answer: str) -> str:
    def inside(match: re.Match[str]) -> str:
        return match[2] if match.span() == (0, len(match.string)) and match[1] not in match[2] else match[0]

    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    line = next((line for line in lines if not line.endswith(":")), lines[0] if lines else "")
    while (bare := LABEL.sub("", QUOTES.sub(inside, line)).strip()) != line:
        line = bare
    return line


@settings(max_examples=scaled(5000))
@given(LINES)
def test_the_task_is_that_of_the_plain_form(answer: str) -> None:
    assert task_of(answer) == plain_task_of(answer)


STATEMENTS = (
    "assert f(1) == 2", "x = 'é'; assert f(x)", "@a\n@b(1)\ndef t():\n    assert f(1)", "class T:\n  def m(self): ...",
    "assert f(\n  '''é\n\n''',\n  2\n)", "import math", "x = [\n 1,\n 2]; y = 3; assert f(y)", "# é", "",
    "async def g(): ...",
)  # fmt: skip


@settings(max_examples=scaled(300))
@given(st.lists(st.sampled_from(STATEMENTS), max_size=8).map("\n".join))
def test_the_source_of_a_statement_is_that_of_ast(text: str) -> None:
    tree = parse_python(text)
    assert tree is not None
    source = Source(text)
    for node in tree.body:
        assert source.of(node) == plain_source(text, node)


def plain_source(text: str, node: Any) -> str:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return ast.get_source_segment(text, node) or ""
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return "\n".join(text.split("\n")[first - 1 : node.end_lineno])
