"""Retrieval over a corpus: passages ranked by BM25 (Robertson and Zaragoza 2009, section 3).

The idf is that of Lucene, which is never negative. Scores are sums of float64 in a fixed order, and equal scores go by
the order of the corpus, so a query always gets the same passages.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.records.errors import UserError
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.spec import nearest
from gristmill.stages.tools.contract import Tool, ToolFailed, TrajectoryState, cut, object_schema

K1, B = 1.2, 0.75  # saturation of term counts, and how much the length of a passage counts
WORD = re.compile(r"\w+")
ROWS_A_TIME, FIRST_ROWS = 4096, 16
DESCRIPTION = "Searches a collection of texts and returns the passages that best match the query."


def words_of(text: str) -> list[str]:
    return WORD.findall(text.casefold())


class Bm25:
    """An index of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        postings: dict[str, list[tuple[int, int]]] = {}
        lengths = np.zeros(len(texts))
        for number, text in enumerate(texts):
            counts = Counter(words_of(text))
            lengths[number] = sum(counts.values())
            for word, count in counts.items():
                postings.setdefault(word, []).append((number, count))
        mean = float(lengths.mean()) if len(texts) else 0.0
        self._norm = K1 * (1 - B + B * lengths / (mean or 1.0))  # float64 (texts,)
        self._postings = {word: np.array(pairs, np.int64) for word, pairs in postings.items()}  # int64 (hits, 2)
        self._num_texts = len(texts)

    def scores(self, query: str) -> np.ndarray:
        """The score of each text: float64 (texts,), 0 where no word of the query occurs."""
        scores = np.zeros(self._num_texts)
        for word in dict.fromkeys(words_of(query)):
            if (pairs := self._postings.get(word)) is None:
                continue
            numbers, counts = pairs[:, 0], pairs[:, 1]
            idf = np.log1p((self._num_texts - len(numbers) + 0.5) / (len(numbers) + 0.5))
            scores[numbers] += idf * counts * (K1 + 1) / (counts + self._norm[numbers])
        return scores

    def best(self, query: str, num: int) -> list[int]:
        """The numbers of the best texts, at most `num`, the best first; none without a word of the query."""
        scores = self.scores(query)
        order = np.argsort(-scores, kind="stable")[:num]
        return [int(number) for number in order if scores[number] > 0]


class CorpusTool(Tool):
    """Searches the rows of a source. The index is made when the tools open, and is of the size of the corpus."""

    def __init__(self, path: str, column: str, num_passages: int, name: str, description: str, max_chars: int) -> None:
        """Raises UserError for a corpus that is missing or empty."""
        parameters = object_schema({"query": {"type": "string", "description": "words to search for"}}, ["query"])
        super().__init__(name, description or DESCRIPTION, parameters)
        self._column, self._num_passages, self._max_chars = column, num_passages, max_chars
        self._source = open_source(SourceSpec(path=path))  # workers read the files as they were here, or raise
        self._source.select([column])
        self.digest = self._source.digest()
        self._index: Bm25 | None = None
        self._passages: list[tuple[str, str]] = []  # (id, text)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_passages": []}

    def check(self) -> None:
        """Raise UserError when none of the first rows has the column."""
        rows = [json.loads(text) for _, text in self._source.rows(0, min(FIRST_ROWS, self._source.num_rows))]
        if not any(self._column in row for row in rows):
            names = dict.fromkeys(name for row in rows for name in row)
            raise UserError(f"corpus {self._source.path}: no column '{self._column}'{nearest(self._column, names)}")

    def open(self) -> None:
        """Read the corpus. Raises UserError when it has changed, and when no row has a text in the column."""
        if self._index is not None:
            return
        source = self._source
        for start in range(0, source.num_rows, ROWS_A_TIME):
            for row_id, text in source.rows(start, min(start + ROWS_A_TIME, source.num_rows)):
                value = json.loads(text).get(self._column)
                if isinstance(value, str) and value.strip():
                    self._passages.append((row_id, value))
        if not self._passages:
            raise UserError(f"corpus {source.path}: no row has a text in column '{self._column}'")
        self._index = Bm25([text for _, text in self._passages])

    def call(self, arguments: Mapping[str, Any], state: TrajectoryState) -> str:
        assert self._index is not None
        query = arguments["query"]
        if not words_of(query):
            raise ToolFailed("the query contains no words")
        best = self._index.best(query, self._num_passages)
        if not best:
            return "(nothing was found)"
        share = max(1, self._max_chars // len(best))
        return "\n\n".join(f"[{self._passages[n][0]}]\n{cut(self._passages[n][1].strip(), share)}" for n in best)
