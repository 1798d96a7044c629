"""How often kept texts begin, end and are built alike: the alarm for template collapse.

A teacher that falls into a template writes rows that differ word by word, so that no dedup stage rejects them, and yet
open, close or are built the same. Three marks of a text are counted: its opening and its closing (four words, digits as
#) and its skeleton (what its first lines are: headings, list items, tables, and the first word of each sentence).

Counts are bounded as in Misra and Gries 1982, merged as in Agarwal et al. 2012 (Mergeable Summaries): at most
MAX_MARKS marks a kind, and none is counted too low by more than `missed`, at most 1 in MAX_MARKS + 1 of the texts.
Lots are added in their order, so a resumed run has the same counts. Of a lot at most MAX_TEXTS texts are looked at,
evenly spread: a text takes about 50 microseconds.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice, takewhile
from typing import NamedTuple

import pyarrow as pa

from gristmill.records.scripts import SIGNS, UNSPACED

Counts = dict[str, dict[str, int]]  # "openings" and so on: texts by mark; "missed": by kind; "of": {"texts": ...}

KINDS = ("openings", "closings", "skeletons")
MISSED, OF, TEXTS = "missed", "of", "texts"
COLUMN = "text"
MAX_MARKS = 64  # of a kind
NUM_WORDS = 4  # of an opening and a closing
MIN_WORDS = 12  # of a text that counts; a shorter one is a label or an answer, and is alike by its nature
MIN_TEXTS = 100  # before a share is worth an alarm
MAX_TEXTS = 64  # of a lot
MAX_CHARS = 400  # of a text that are looked at for its opening
MAX_END_CHARS = 120  # for its closing
MAX_MARK_CHARS = 100
MAX_LINES, MAX_ITEMS = 24, 10  # of a skeleton
MIN_ITEMS = 3
# A word; of a script without white space between words, two characters.
WORD = re.compile(rf"(?:[{UNSPACED}][{SIGNS}]*+){{1,2}}|[^\W{UNSPACED}]+(?:['’][^\W{UNSPACED}]+)*")
DIGITS = re.compile(r"\d+")
SENTENCE = re.compile(r"[.!?…।॥؟۔。！？]+[\"'”’»)\]）」』】]*\s*")
SHAPES = (
    (re.compile(r"#{1,6}\s"), "heading"),
    (re.compile(r"[-*+•·]\s"), "item"),
    (re.compile(r"[(\[]?(?:\d{1,9}+|[a-zA-Z])[.):\]]\s"), "number"),
    (re.compile(r"\|"), "table"),
    (re.compile(r"```|~~~"), "code"),
    (re.compile(r">"), "quote"),
)
LABEL = re.compile(
    r"[*_]{0,3}+([^\W_][^\W_ ]{0,24}(?: [^\W_ ]{1,24}){0,3})[*_]{0,3}:[*_]{0,3}(?:\s|$)"
)  # "Answer:", "**Step 2:**"


class Share(NamedTuple):
    """The most frequent mark of a kind."""

    kind: str
    mark: str
    num: int  # texts, at least
    share: float  # of all texts that count


def count(table: pa.Table) -> Counts:
    """The counts of the kept rows of a lot; empty where they have no texts that count."""
    if COLUMN not in table.schema.names or not pa.types.is_string(table.schema.field(COLUMN).type):
        return {}
    counters: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    num_texts = 0
    places = [at * table.num_rows // MAX_TEXTS for at in range(MAX_TEXTS)] if table.num_rows > MAX_TEXTS else None
    column = table.column(COLUMN)
    for text in (column if places is None else column.take(pa.array(places))).to_pylist():
        marks = marks_of(text) if text else None
        if marks is not None:
            num_texts += 1
            for kind, mark in zip(KINDS, marks):
                if mark:
                    counters[kind][mark] += 1
    if not num_texts:
        return {}
    counts: Counts = {OF: {TEXTS: num_texts}}
    for kind in KINDS:
        _bound(counts, kind, counters[kind])
    return counts


def merge(held: Counts, more: Counts) -> None:
    """Add `more` to `held`."""
    if not more:
        return
    held[OF] = {TEXTS: num_texts(held) + num_texts(more)}
    for kind in KINDS:
        missed = more.get(MISSED, {}).get(kind, 0)
        if missed:
            _add_missed(held, kind, missed)
        if more.get(kind):
            _bound(held, kind, Counter(held.get(kind, {})) + Counter(more[kind]))


def num_texts(counts: Counts) -> int:
    """Texts that count."""
    return counts.get(OF, {}).get(TEXTS, 0)


def top(counts: Counts, kind: str, num: int = 1) -> list[Share]:
    """The `num` most frequent marks of a kind, the most frequent first."""
    ranked = sorted(counts.get(kind, {}).items(), key=lambda entry: (-entry[1], entry[0]))
    return [Share(kind, mark, num_with, num_with / num_texts(counts)) for mark, num_with in ranked[:num]]


def shares(counts: Counts) -> dict[str, float]:
    """The share of the most frequent mark, by kind; empty before MIN_TEXTS texts, when it says little."""
    if num_texts(counts) < MIN_TEXTS:
        return {}
    return {kind: round(best.share, 4) for kind in KINDS for best in top(counts, kind)}


def largest(counts: Counts) -> Share | None:
    """The mark that most texts have, of any kind; None before MIN_TEXTS texts."""
    if num_texts(counts) < MIN_TEXTS:
        return None
    return max((best for kind in KINDS for best in top(counts, kind)), key=lambda best: best.num, default=None)


def likeness(counts: Counts, least: float = 0.0) -> str:
    """The most frequent mark in words, for a line to people; "" where no mark has more than the share `least`."""
    best = largest(counts)
    if best is None or best.share <= least:
        return ""
    what = {"openings": "begin with", "closings": "end with", "skeletons": "are built as"}[best.kind]
    return f"{best.share:.0%} of {num_texts(counts):,} texts {what} {best.mark!r}"


def marks_of(text: str) -> tuple[str, str, str] | None:
    """(opening, closing, skeleton) of a text, the last "" for one of few lines and sentences; None if it is short."""
    head = text[:MAX_CHARS]
    words = [match[0] for match in islice(WORD.finditer(head), MIN_WORDS)]
    if len(words) < MIN_WORDS:
        return None
    ending = WORD.findall(text[-MAX_END_CHARS:])[-NUM_WORDS:]
    return _mark(words[:NUM_WORDS]), _mark(ending), _skeleton(text)


def _mark(words: Iterable[str]) -> str:
    return DIGITS.sub("#", " ".join(words).casefold())[:MAX_MARK_CHARS]


def _skeleton(text: str) -> str:
    """What the first lines of a text are, repeats once: "heading | the . it | item+"."""
    items: list[str] = []
    lines = islice((line for line in text[: 10 * MAX_CHARS].split("\n") if line.strip()), MAX_LINES)
    for line in lines:
        shape = _shape(line.strip())
        if items and items[-1].rstrip("+") == shape:
            items[-1] = f"{shape}+"
        else:
            items.append(shape)
        if len(items) >= MAX_ITEMS:
            break
    num = sum(1 + item.count(" . ") for item in items)
    return " | ".join(items)[: 2 * MAX_MARK_CHARS] if num >= MIN_ITEMS else ""


def _shape(line: str) -> str:
    for pattern, name in SHAPES:
        if pattern.match(line):
            return name
    if label := LABEL.match(line):
        return f"{_mark(WORD.findall(label[1]))}:"
    starts = (WORD.search(sentence) for sentence in SENTENCE.split(line[: 2 * MAX_CHARS])[:MAX_ITEMS])
    return " . ".join(_mark([word[0]]) for word in takewhile(bool, starts) if word)


def _bound(counts: Counts, kind: str, counter: Mapping[str, int]) -> None:
    """Set the marks of a kind, cut to MAX_MARKS: all counts fall by the count of the first that is cut."""
    ranked = sorted(counter.items(), key=lambda entry: (-entry[1], entry[0]))
    cut = ranked[MAX_MARKS][1] if len(ranked) > MAX_MARKS else 0
    if cut:
        _add_missed(counts, kind, cut)
    marks = {mark: num - cut for mark, num in ranked[:MAX_MARKS] if num > cut}
    if marks:
        counts[kind] = marks
    else:  # as in counts that come from a footer, which holds no empty table
        counts.pop(kind, None)


def _add_missed(counts: Counts, kind: str, missed: int) -> None:
    by_kind = counts.setdefault(MISSED, {})
    by_kind[kind] = by_kind.get(kind, 0) + missed
