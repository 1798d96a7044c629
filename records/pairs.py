"""Pairs of related source rows, for methods that read two documents.

A row's partners lie in its block: `within` rows of the source in a row. So memory and work do not grow with the source,
and the partners of an ask are literals: a resumed run makes the same asks. Sort a source so that related rows lie near.

Two rows are related by a column that names links, in the ways of WRAP++ (arXiv 2604.06829): one names the other, both
name each other, or both name a third. Without such a column they are related by rare words that both hold.
"""

import json
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.records.readers.sources import Source
from gristmill.records.scripts import UNSPACED
from gristmill.records.words import words

OTHER, OTHER_ID = "other", "other_source_id"  # keys that an ask gets: the partner's row, and its source id
UNSPACED_START = re.compile(rf"[{UNSPACED}]")
MAX_ROWS = 32  # of a block that a rare word occurs in, and that share a link
MAX_BLOCKS = 4  # that are held in memory
IDF_UNIT = 1000  # weights are integers, so that sums are exact


@dataclass(frozen=True)
class PairsSpec:
    """`[pairs]` of a recipe: which other row of the source each ask shows, for methods that read two documents."""

    # Column that relates rows: a value that both have, or a list of links with an entry in common. A row's own id
    # counts as one of its values, so a link to it relates too. Default: by rare words of `text`.
    link: str | None = None
    text: str = "text"  # Column whose words relate rows where there is no `link`.
    within: int = 256  # Rows of a block, at least 2; a row's partner lies in its own block.
    min_shared: int = 3  # Rare words that two rows must share, where there is no `link`.

    def __post_init__(self) -> None:
        if self.within < 2 or self.within > 65536:
            raise ValueError("within must lie in 2 to 65,536 rows")
        if self.min_shared < 1:
            raise ValueError("min_shared must be at least 1")
        if self.link == "" or not self.text:
            raise ValueError("link and text must name columns")

    @property
    def column(self) -> str:
        """The column of the source that relates rows."""
        return self.text if self.link is None else self.link


@dataclass
class _Block:
    """Rows of the source and the partners of each, the closest first."""

    rows: list[tuple[str, str]]
    partners: list[list[int]]


class PairSource:
    """A source whose rows come with a partner: sample s of a row gets its partner number s, in turns.

    A row without a partner comes alone, without the key OTHER_ID; the method refuses it.
    """

    def __init__(self, source: Source, spec: PairsSpec) -> None:
        self.source, self.spec = source, spec
        self._blocks: OrderedDict[int, _Block] = OrderedDict()

    def ask_rows(self, start: int, stop: int, num_rows: int) -> list[tuple[str, str]]:
        """(source id, JSON text) of asks [start, stop), which cycle through the first `num_rows` rows."""
        together = self.source.num_together
        return [
            self._pair(*((ask // together, ask % together) if together > 1 else (ask % num_rows, ask // num_rows)))
            for ask in range(start, stop)
        ]

    def _pair(self, row: int, sample: int) -> tuple[str, str]:
        number, at = divmod(row, self.spec.within)
        block = self._block(number)
        source_id, text = block.rows[at]
        partners, fields = block.partners[at], _object(text)
        if not partners or fields is None:
            if fields is not None and OTHER_ID in fields:  # a column of the source, which is no partner's id
                text = json.dumps({k: v for k, v in fields.items() if k != OTHER_ID}, ensure_ascii=False)
            return source_id, text
        other_id, other = block.rows[partners[sample % len(partners)]]
        return source_id, json.dumps({**fields, OTHER: _object(other), OTHER_ID: other_id}, ensure_ascii=False)

    def _block(self, number: int) -> _Block:
        if number not in self._blocks:
            first = number * self.spec.within
            rows = self.source.rows(first, min(first + self.spec.within, self.source.num_rows))
            self._blocks[number] = _Block(rows, partners_of(rows, self.spec))
            if len(self._blocks) > MAX_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


def partners_of(rows: Sequence[tuple[str, str]], spec: PairsSpec) -> list[list[int]]:
    """The partners of each of the (source id, JSON text) `rows`, the closest first, of equals the next one on."""
    objects = [_object(text) for _, text in rows]
    if spec.link is not None:
        marks = [_links(fields, spec.link, row_id) if fields else set() for fields, (row_id, _) in zip(objects, rows)]
        least = 1
    else:
        marks = [set(_words(fields.get(spec.text))) if fields else set() for fields in objects]
        least = spec.min_shared
    numbers: dict[str, list[int]] = {}
    for number, row_marks in enumerate(marks):
        for mark in row_marks:
            numbers.setdefault(mark, []).append(number)
    shared: list[Counter[int]] = [Counter() for _ in rows]
    weights: list[Counter[int]] = [Counter() for _ in rows]
    for holders in numbers.values():
        if not 2 <= len(holders) <= MAX_ROWS and spec.link is None:
            continue
        weight = round(math.log(1 + len(rows) / len(holders)) * IDF_UNIT)
        for at, number in enumerate(holders):
            near = holders[max(0, at - MAX_ROWS) : at] + holders[at + 1 : at + 1 + MAX_ROWS]
            for other in near:
                shared[number][other] += 1
                weights[number][other] += weight
    return [
        sorted(
            (other for other, num in shared[number].items() if num >= least and rows[other][0] != rows[number][0]),
            key=lambda other: (
                -(weights[number][other] * 100 // math.isqrt(10_000 * len(marks[other]))),  # long rows share more words
                (other - number) % len(rows),
            ),
        )
        for number in range(len(rows))
    ]


def _words(text: Any) -> Iterator[str]:
    """Words of a text (see records/words.py) but for numbers; of a script without white space, pairs of characters."""
    in_order = words(text) if isinstance(text, str) else []
    for word, following in zip(in_order, [*in_order[1:], ""]):
        if not UNSPACED_START.match(word):
            yield from () if word.isdigit() else (word,)
        elif UNSPACED_START.match(following):
            yield word + following


def _links(fields: dict[str, Any], column: str, row_id: str) -> set[str]:
    value = fields.get(column)
    values = value if isinstance(value, list) else [] if value is None or value == "" else [value]
    return {row_id, *(each if isinstance(each, str) else json.dumps(each) for each in values)}


def _object(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
