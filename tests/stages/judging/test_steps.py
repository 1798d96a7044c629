"""Where the steps of a solution begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.stages.judging.steps import split_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n\t\n", []),
        ("One line only.", ["One line only."]),
        ("2 + 2 = 4\n4 * 3 = 12", ["2 + 2 = 4", "4 * 3 = 12"]),
        ("We add.\nIt is 4.\n\nThen we double.\n \nDone.", ["We add.\nIt is 4.", "Then we double.", "Done."]),
        ("1. add\n2. double\n3. stop", ["1. add", "2. double", "3. stop"]),
        ("1) add\n\n  it is 4\n2) double", ["1) add\n\n  it is 4", "2) double"]),
        ("(1) add\n(2) double", ["(1) add", "(2) double"]),
        ("Let us see.\n1. add\n2. double", ["Let us see.\n1. add", "2. double"]),
        ("Step 1: add\nit\nStep 2: see\n1. a\n2. b", ["Step 1: add\nit", "Step 2: see\n1. a\n2. b"]),
        ("## Step 1\nadd\n\n**Step 2:** double", ["## Step 1\nadd", "**Step 2:** double"]),
        ("step 0 a\nSTEP 1 b", ["step 0 a", "STEP 1 b"]),
        # A number out of turn or deeply indented, and a decimal number, begin nothing.
        ("1. add\n7. of these\n2. double", ["1. add\n7. of these", "2. double"]),
        ("1. add\n    2. inner\n2. double", ["1. add\n    2. inner", "2. double"]),
        ("1.5 + 2 = 3.5\n2.5 is less", ["1.5 + 2 = 3.5", "2.5 is less"]),
        ("3. odd start\n4. next", ["3. odd start", "4. next"]),  # by lines: it begins with neither 0 nor 1
        ("1. only one\nof them", ["1. only one", "of them"]),  # by lines
        ("a\r\n\r\nb", ["a", "b"]),
    ],
)  # fmt: skip
def test_steps_by_rule(text: str, steps: list[str]) -> None:
    assert split_steps(text) == steps


LINES = st.sampled_from(
    [
        "",
        "  ",
        "1. add",
        "2. double",
        "(1) add",
        "3) halve",
        "Step 1: see",
        "**Step 2** so",
        "    2. inner",
        "plain",
        "ünd 4",
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(LINES, max_size=12).map("\n".join))


@given(TEXTS)
def test_nothing_but_white_space_is_lost(text: str) -> None:
    steps = split_steps(text)
    assert all(step and step == step.strip() for step in steps)
    assert "".join("".join(steps).split()) == "".join(text.split())


@given(st.lists(st.text("abc .,", min_size=1).map(str.strip).filter(bool), min_size=2, max_size=8), st.integers(0, 1))
def test_numbered_steps_are_found_again(bodies: list[str], first: int) -> None:
    for mark in ("Step {}: {}", "{}. {}", "({}) {}"):
        steps = [mark.format(number, body) for number, body in enumerate(bodies, first)]
        assert split_steps("\n".join(steps)) == steps
        assert split_steps("\n\n".join(steps)) == steps
