"""Long documents in chunks: cut at paragraphs, then lines, then sentences, then words, whatever the script.

A word is a run of characters without white space; in scripts that write none between words, each character is one.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from gristmill.records.scripts import SIGNS, UNSPACED

WORD = re.compile(rf"[{UNSPACED}][{SIGNS}]*+|[^\s{UNSPACED}]+")
STOPS = ".!?…؟۔।॥։።"
CLOSERS = "\"'”’»)\\]）」』】"
# Where a text may be cut, best first. Each pattern matches up to the cut, white space behind it included.
BORDERS = (
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraphs
    re.compile(r"\n\s*"),  # lines
    re.compile(rf"(?<![{STOPS}])[{STOPS}]++[{CLOSERS}]*\s+|[。！？｡]+[{CLOSERS}]*\s*"),  # sentences
    re.compile(r"\s+"),  # words, or phrases of a script without white space between words
    re.compile(rf"(?<=[{UNSPACED}{SIGNS}])(?=[^\s{SIGNS}])|(?<=\S)(?=[{UNSPACED}])(?![{SIGNS}])"),  # characters
)
# Where each part of a row comes from and went to: characters [start, end) of `original` and of `text`.
PARTS = pa.field(
    "parts",
    pa.list_(
        pa.struct([pa.field(f"{name}_{end}", pa.int32()) for name in ("original", "text") for end in ("start", "end")])
    ),
)
MAX_CHARS = 50  # of a word, in the end of a text
SEPARATOR = "\n\n"  # between the parts of a row


def num_words(text: str) -> int:
    """Words of a text."""
    return sum(1 for _ in WORD.finditer(text))


def first_words(text: str, max_words: int) -> str:
    """The text up to the end of its word number `max_words`; all of it where it has no more."""
    end = 0
    for number, word in enumerate(WORD.finditer(text)):
        if number == max_words:
            return text[:end]
        end = word.end()
    return text


def last_words(text: str, max_words: int) -> str:
    """The last `max_words` words of a text, or fewer, so that they begin with a sentence where one begins there."""
    text = text[-max_words * MAX_CHARS :]
    words = list(WORD.finditer(text))
    if len(words) <= max_words:
        return text
    end = text[words[-max_words].start() :] if max_words else ""
    sentence = BORDERS[2].search(end)
    return end[sentence.end() :] if sentence and end[sentence.end() :].strip() else end


def chunks(text: str, max_words: int) -> list[str]:
    """A text in as few chunks of at most `max_words` words as its borders allow, of about equal length.

    Joined they are the text. A text without words is a single chunk.
    """
    pieces = [(piece, num_words(piece)) for piece in _pieces(text, max_words, 0)]
    fewest = len(_join(pieces, max_words))
    low, high = max((size for _, size in pieces), default=0), max_words
    while low < high:  # the smallest limit that gives as few: then no chunk is a short rest
        middle = (low + high) // 2
        if len(_join(pieces, middle)) > fewest:
            low = middle + 1
        else:
            high = middle
    return _join(pieces, high)


def most_chunks(num_words: int, max_words: int) -> int:
    """The largest number of chunks of a text of `num_words` words: two neighbours have more than `max_words`."""
    return max(1, 2 * num_words // (max_words + 1) + 1)


def _pieces(text: str, max_words: int, level: int) -> list[str]:
    """A text cut at the best borders that give pieces of at most `max_words` words."""
    if level == len(BORDERS) or num_words(text) <= max_words:
        return [text]
    cuts = [0, *(match.end() for match in BORDERS[level].finditer(text)), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(cuts) if start < stop]
    return [finer for piece in pieces for finer in _pieces(piece, max_words, level + 1)]


def _join(pieces: Sequence[tuple[str, int]], max_words: int) -> list[str]:
    """Neighbouring pieces joined as long as they hold at most `max_words` words."""
    parts, total = [""], 0
    for piece, size in pieces:
        if total + size > max_words and parts[-1].strip():
            parts.append("")
            total = 0
        parts[-1] += piece
        total += size
    if len(parts) > 1 and not parts[-1].strip():  # white space alone is no chunk
        parts[-2:] = ["".join(parts[-2:])]
    return parts


def stitch(
    parts: Sequence[str], spans: Sequence[tuple[int, int]], separator: str = SEPARATOR
) -> tuple[str, list[dict[str, Any]]]:
    """(the parts as one text, the value of PARTS); `spans`: what of the original each part was made from."""
    at, places = 0, []
    for part, (start, end) in zip(parts, spans, strict=True):
        places.append({"original_start": start, "original_end": end, "text_start": at, "text_end": at + len(part)})
        at += len(part) + len(separator)
    return separator.join(parts), places


def parts_of(payload: Mapping[str, Any]) -> list[str]:
    """The parts of the `text` of a row, which its `parts` tell apart: what `stitch` has joined."""
    return [payload["text"][place["text_start"] : place["text_end"]] for place in payload["parts"]]
