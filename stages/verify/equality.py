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


# Texts whose order says nothing: sets, "1 or 2", "x = 1, x = 2", signs that stand for two values; and what holds commas
# of its own, such as intervals and commands. A sequence has none of these.
NO_SEQUENCE = re.compile(r"[=<>{}()\[\]\\|±;]|\b(?:and|or)\b", re.IGNORECASE)
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
    if items and expected and len(items) + len(expected) > 2:
        return len(items) == len(expected) and all(is_equal(*pair) for pair in zip(items, expected))
    seed(0)  # sympy tries random numbers where it has no proof, and a verdict must not be random
    gold, parsed = _parse(reference), _parse(answer)
    return bool(verify(gold, parsed, timeout_seconds=None))


def sequence(text: str) -> list[str]:
    """The entries of a list without brackets; [] for a text whose order may say nothing."""
    return [] if NO_SEQUENCE.search(text) else [item.strip() for item in SEPARATOR.split(text)]


def _parse(text: str) -> list[Any]:
    expressions = parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    if not expressions:
        raise ValueError("no expression")
    return list(expressions)
