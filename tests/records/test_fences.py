"""Fenced blocks: the scan finds what the plain regular expressions find, which take quadratic time."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.fences import Block, first_block, first_block_of
from tests.profiles import scaled

ANY_BLOCK = re.compile(r"```[ \t]*(?:python|py)?[^\n]*\n(.*?)(?:(```)|\Z)", re.DOTALL)
JSON_BLOCK = re.compile(r"```(?:json|JSON)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)
PIECES = ("```", "`", "``", "\n", "\r\n", "\r", " ", "\t", "json", "JSON", "python", "py", "j", "x = 1", "{}", "é")
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@settings(max_examples=scaled(3000))
@given(TEXTS)
def test_the_first_block_is_that_of_the_expression(text: str) -> None:
    match = ANY_BLOCK.search(text)
    assert first_block(text) == (match and Block(match[1], match[2] is not None))


@settings(max_examples=scaled(3000))
@given(TEXTS)
def test_the_first_block_of_a_language_is_that_of_the_expression(text: str) -> None:
    match = JSON_BLOCK.search(text)
    assert first_block_of(text, ("json", "JSON")) == (match and match[1])
