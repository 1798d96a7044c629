"""Whether two expressions are the same, by math_verify and sympy. Runs inside the sandbox: it imports nothing of ours.

Parsing and simplifying what a model wrote may take all time and memory there is, and sympy evaluates text.
"""

import logging
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


def warm() -> None:
    """Have the parser build its tables, which takes longer than most comparisons."""
    logging.disable(logging.CRITICAL)
    for one, other in EXAMPLES:
        is_equal(one, other)


def is_equal(found: str, expected: str) -> bool:
    """Raises ValueError where one of the two is no expression."""
    seed(0)  # sympy tries numbers drawn by chance where it cannot prove, and a verdict is not chance's
    gold, given = _parsed(expected), _parsed(found)
    return bool(verify(gold, given, timeout_seconds=None))


def _parsed(text: str) -> list[Any]:
    read = parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    if not read:
        raise ValueError("no expression")
    return list(read)
