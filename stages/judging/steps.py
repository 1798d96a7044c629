"""Splits a worked solution into steps.

The first of these rules that finds at least two steps applies:
 1. lines that begin with "Step n" (any case; list marks, heading marks and bold before it are skipped);
 2. lines that begin with the number of a list, "1.", "1)" or "(1)", and white space;
 3. paragraphs: runs of lines without an empty line between them;
 4. lines that are not empty.

Numbered steps (rules 1 and 2) begin with 0 or 1 and increase by one. A number out of order, or indented by at least
four columns, is part of the step around it. Text before the first numbered step belongs to that step. Steps are
stripped of white space around them, and nothing else is lost: joined, they are the text but for white space.
"""

import re

STEP = re.compile(r"^ {0,3}[-#*_\s]{0,8}step\s{1,3}(\d{1,4})\b", re.IGNORECASE)
NUMBER = re.compile(r"^ {0,3}[*_]{0,2}(?:(\d{1,4})[.)]|\((\d{1,4})\))[*_]{0,2}(?:\s|$)")
BREAK = re.compile(r"\n[^\S\n]*\n")


def split_steps(text: str) -> list[str]:
    """The steps of `text` in order, none of them empty; [] for a text of white space."""
    lines = text.replace("\r\n", "\n").split("\n")
    for pattern in (STEP, NUMBER):
        starts = _step_starts(lines, pattern)
        if len(starts) > 1:
            ends = [*starts[1:], len(lines)]
            first = [0, *starts[1:]]
            return _strip(["\n".join(lines[start:end]) for start, end in zip(first, ends)])
    paragraphs = _strip(BREAK.split("\n".join(lines)))
    return paragraphs if len(paragraphs) > 1 else _strip(lines)


def _step_starts(lines: list[str], pattern: re.Pattern[str]) -> list[int]:
    """The numbers of the lines where numbered steps begin."""
    starts: list[int] = []
    next_numbers: tuple[int, ...] = (0, 1)
    for at, line in enumerate(lines):
        if (match := pattern.match(line)) is None:
            continue
        number = int(next(group for group in match.groups() if group is not None))
        if number in next_numbers:
            starts.append(at)
            next_numbers = (number + 1,)
    return starts


def _strip(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]
