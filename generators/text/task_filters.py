"""Faults of generated tasks, after section 2.2 of Self-Instruct (Wang et al. 2022)."""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gristmill.records.words import text_key

KEYWORDS = (
    *("image", "images", "picture", "pictures", "photo", "photos", "graph", "graphs", "map", "maps", "file", "files"),
    *("video", "videos", "audio", "draw", "plot", "go to"),
)
OPENINGS = ("write a program",)
# Possessive, because a run of blanks or digits that is not followed by a mark must not be tried in parts.
LABEL = re.compile(r"(?:\**(?:new |next )?task\s*+(?:\d++\s*+)?[:.)-]\**|\d++\s*+[.):]|[-•])\s*", re.IGNORECASE)
QUOTES = ("**", '"', "'", "*", "_", "`")  # "**" before "*"


class Bounds(Protocol):
    """Limits from which a task is faulty: the keys of SelfInstructSpec."""

    @property
    def min_words(self) -> int: ...
    @property
    def max_words(self) -> int: ...
    @property
    def keywords(self) -> tuple[str, ...]: ...
    @property
    def openings(self) -> tuple[str, ...]: ...


def task_of(answer: str) -> str:
    """The task in an answer: its first line that does not merely announce it, without number, label and quotes."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    line = next((line for line in lines if not line.endswith(":")), lines[0] if lines else "")
    start, end = 0, len(line)
    before = None
    while before != (start, end):  # places instead of shorter texts: a line may hold many labels
        before = start, end
        start, end = _inside(line, start, end)
        if label := LABEL.match(line, start, end):
            start = label.end()
        while start < end and line[start].isspace():
            start += 1
        while start < end and line[end - 1].isspace():
            end -= 1
    return line[start:end]


def _inside(line: str, start: int, end: int) -> tuple[int, int]:
    """line[start:end] without quotes around the whole of it, as (start, end)."""
    quote = next((quote for quote in QUOTES if line.startswith(quote, start, end)), "")
    inner, inner_end = start + len(quote), end - len(quote)
    is_whole = quote and inner < inner_end and line.endswith(quote, inner, end)
    return (inner, inner_end) if is_whole and line.find(quote, inner, inner_end) < 0 else (start, end)


def task_fault(task: str, examples: Sequence[Mapping[str, Any]], bounds: Bounds) -> str | None:
    """The reason for which a task is refused, null for a good one."""
    words, low = task.split(), task.casefold()
    if len(words) < bounds.min_words:
        return "too_short"
    if len(words) > bounds.max_words:
        return "too_long"
    if task[0] in string.punctuation:
        return "punctuation"
    if not task[0].isascii():
        return "not_english"
    if any(re.search(rf"\b{re.escape(word.casefold())}\b", low) for word in bounds.keywords):
        return "keyword"
    if low.startswith(tuple(opening.casefold() for opening in bounds.openings)):
        return "opening"
    if text_key(task) in {text_key(example["instruction"]) for example in examples}:
        return "copied"
    return None


def instance_fault(task: str, input_text: str, output: str, examples: Sequence[Mapping[str, Any]]) -> str | None:
    """Why an instance is refused, None for a good one. It must not repeat an output of `examples`."""
    if not output:
        return "empty_output"
    if text_key(output) in (text_key(input_text), text_key(task)):
        return "echo"
    if output.endswith(":") or input_text.endswith(":"):
        return "open_end"
    outputs = {text_key(example["output"]) for example in examples if isinstance(example.get("output"), str)}
    return "repeated" if text_key(output) in outputs else None
