"""Whether two expressions are equal, by math_verify and sympy.

Runs inside the sandbox and imports nothing of gristmill.

Parsing and simplifying a model's output may take unlimited time and memory, and sympy evaluates text.
"""

import logging
import re
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.random import seed

EXAMPLES = (
    (r"\frac{1}{2}x^2+\sqrt{8}", r"\frac{x^2}{2}+2\sqrt{2}"),
    (r"\{1,2\}\cup[3,\infty)", r"(1,2]"),
    (r"x=5.5, y\le -3", "5 cm"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\sin(2\pi x)+\log_2 8\cdot e^{-t}"),
    ("2*(x+1)^3", "1,000/7"),
    (r"\sqrt[3]{7}n!-|a_1|", r"3\frac{1}{2}"),
)


# Texts whose order says nothing: sets, "1 or 2", "x = 1, x = 2", signs that stand for two values, unions.
NO_SEQUENCE = re.compile(
    r"[=<>≤≥≠±∪;]|\\[{}]|\\(?:pm|mp|cup|cap|leq?|geq?|lt|gt|neq?|in|lbrace|begin)(?![a-z])|\b(?:and|or)\b",
    re.IGNORECASE,
)
BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
SEPARATOR = re.compile(r",(?!(?<=\d,)\d{3}(?!\d))")  # no comma between the digits of a number


def warm() -> None:
    """Let the parser build its tables, which takes longer than most comparisons."""
    logging.disable(logging.CRITICAL)
    for one, other in EXAMPLES:
        is_equal(one, other)


def is_equal(answer: str, reference: str) -> bool:
    """Whether `answer` equals `reference`. Raises ValueError if a text is not an expression.

    The order counts where both are lists without brackets, and so does the number of entries.
    """
    items, expected = sequence(answer), sequence(reference)
    if len(items) > 1 and len(expected) > 1:
        return len(items) == len(expected) and all(is_equal(*pair) for pair in zip(items, expected))
    if items and expected and len(items) + len(expected) > 2 and not any("," in item for item in (*items, *expected)):
        return False  # a list and one value; "(1, 2)" may stand for "1, 2"
    seed(0)  # sympy tries random numbers where it has no proof, and a verdict must not be random
    gold, parsed = _parse(reference), _parse(answer)
    return bool(verify(gold, parsed, timeout_seconds=None))


def sequence(text: str) -> list[str]:
    """The entries of a list without brackets; [] for a text whose order may say nothing."""
    if NO_SEQUENCE.search(text):
        return []
    items, depth, start = list[str](), 0, 0
    for place, sign in enumerate(text):
        depth += BRACKETS.get(sign, 0)
        if depth == 0 and SEPARATOR.match(text, place):
            items.append(text[start:place].strip())
            start = place + 1
    return [*items, text[start:].strip()]


def _parse(text: str) -> list[Any]:
    expressions = parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    if not expressions:
        raise ValueError("no expression")
    return list(expressions)
