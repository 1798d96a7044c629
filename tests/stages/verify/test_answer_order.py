"""Lists and runs of letters: where the order counts, and where algebra reads sets and products."""

import pytest

from gristmill.stages.verify.answer_text import compare, normal
from gristmill.stages.verify.equality import is_equal

PAIRS = [
    ("1, 3, 2", "3, 1, 2", "wrong"),  # a list without brackets is a sequence
    ("1,2", "2,1", "wrong"),
    ("2, 2", "2", "wrong"),
    ("2, 2, 3", "2, 3", "wrong"),
    ("A, C", "C, A", "wrong"),
    (r"\frac{1}{2}, \sqrt{8}", r"2\sqrt{2}, 0.5", "wrong"),
    (r"\frac{1}{2}, \sqrt{8}", r"0.5, 2\sqrt{2}", "right"),
    ("(1,2), (3,4)", "(3,4), (1,2)", "wrong"),
    ("(1, 2)", "1, 2", "right"),
    ("0.5, 3", "1/2, 3.0", "right"),
    ("1,000, 5", "1000, 5", "right"),
    ("x+1, 2y", "1+x, y*2", "right"),
    (r"\{1, 3, 2\}", r"\{3, 1, 2\}", "right"),  # these are sets, and so is a list beside one
    ("1, 2", r"\{2, 1\}", "right"),
    ("1 or 2", "2 or 1", "right"),
    ("x=1, x=2", "x=2, x=1", "right"),
    ("-1, 1", r"\pm 1", "right"),
    ("xy", "yx", "right"),  # a product of letters
    ("2xy", "2yx", "right"),
    ("ab", "ba", "right"),
    ("A*B", "BA", "right"),
]


@pytest.mark.parametrize(("answer", "reference", "verdict"), PAIRS)
def test_the_order_counts_in_sequences_and_not_in_sets(answer: str, reference: str, verdict: str) -> None:
    assert compare(answer, reference) is None
    assert is_equal(normal(answer), normal(reference)) == (verdict == "right")
