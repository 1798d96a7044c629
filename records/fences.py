"""Fenced code blocks in a model's answer, found by a scan whose time is linear in the text.

A regular expression for a block backtracks over every run of backticks, which takes time quadratic in the answer.
"""

from typing import NamedTuple

FENCE = "```"


class Block(NamedTuple):
    """The text between the line of an opening fence and the closing fence, or the end of the answer without one."""

    text: str
    is_closed: bool


def first_block(text: str) -> Block | None:
    """The first block of any language; None without a fence that has a line end after it."""
    opening = text.find(FENCE)
    line_end = text.find("\n", opening + len(FENCE)) if opening >= 0 else -1
    if line_end < 0:  # later fences have none either
        return None
    closing = text.find(FENCE, line_end + 1)
    return Block(text[line_end + 1 : closing], True) if closing >= 0 else Block(text[line_end + 1 :], False)


def first_block_of(text: str, languages: tuple[str, ...]) -> str | None:
    r"""The first closed block whose language is "" or one of `languages`; None without one.

    The line of the opening fence holds nothing else but blanks. The line end and the blanks before the closing fence do
    not belong to the block.
    """
    opening = text.find(FENCE)
    while opening >= 0:
        start = _body_start(text, opening + len(FENCE), languages)
        if start >= 0:
            closing = text.find(FENCE, start)
            if closing < 0:  # nor does a later fence have one
                return None
            return text[start:closing].rstrip(" \t").removesuffix("\n").removesuffix("\r")
        opening = text.find(FENCE, opening + 1)
    return None


def _body_start(text: str, at: int, languages: tuple[str, ...]) -> int:
    """The place after the line of a fence that ends at `at`; -1 for another language or more text on the line."""
    at += next((len(language) for language in languages if text.startswith(language, at)), 0)
    while text[at : at + 1] in (" ", "\t"):
        at += 1
    at += text.startswith("\r", at)
    return at + 1 if text.startswith("\n", at) else -1
