"""The first fenced block of a text, as the regular expression that says what it is finds it."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from gristmill.stages.verify.fences import first_block

OPEN = re.compile(r"```[ \t]*(?:python|py)?[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
CLOSED = re.compile(r"```[ \t]*(?:python|py)?[^\n]*\n(.*?)```", re.DOTALL)
PARTS = ["```", "`", "``", "\n", "\r\n", "python", "py", " ", "\t", "x = 1", "~~~"]
TEXTS = st.lists(st.sampled_from(PARTS)).map("".join)


@given(TEXTS)
def test_the_block_is_that_of_the_expression(text: str) -> None:
    for must_close, pattern in ((False, OPEN), (True, CLOSED)):
        match = pattern.search(text)
        assert first_block(text, must_close) == (match[1] if match else None)


def test_backticks_without_end_take_no_time() -> None:
    started = time.process_time()
    for text in ("`" * 3_000_000, "```\n" + "`" * 3_000_000, "``` " * 1_000_000, "```\n" * 1_000_000):
        first_block(text)
        first_block(text, must_close=True)
    assert time.process_time() - started < 5
