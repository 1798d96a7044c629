"""Codes of a category column: a bounded number of codes for any number of categories.

Up to `limit` categories have a code each. With more categories, the most frequent have their own code and the others
share a quarter of the codes by a hash of their number (the hashing trick, Weinberger et al. 2009). A model learns what
the categories of a code have in common, and decoding draws one of them by frequency. So a column with a million
categories costs a network no more than one with `limit`; this table takes 12 bytes for each category.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.readers.tables import Column

TAIL_SHARE = 0.25
GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: neighbours scatter (Knuth, The Art of Computer Programming, 6.4)


class Vocabulary:
    """`counts`, int64 (categories + 1,): training rows of each category; the last entry counts missing values."""

    def __init__(self, column: Column, counts: np.ndarray, limit: int) -> None:
        self.column, self.counts = column, counts
        self._values = pa.array(column.categories, pa.string())
        entries = len(counts) if column.nullable else len(counts) - 1
        self.is_capped = entries > limit
        self.code_of = np.arange(len(counts), dtype=np.int32)
        self.size = entries
        if self.is_capped:
            num_tail = max(1, int(limit * TAIL_SHARE))
            head = np.sort(np.argsort(-counts[:entries], kind="stable")[: limit - num_tail])
            hashed = (np.arange(len(counts), dtype=np.uint64) * np.uint64(GOLDEN)) % np.uint64(2**32)
            self.code_of = (limit - num_tail + hashed.astype(np.int64) % num_tail).astype(np.int32)
            self.code_of[head] = np.arange(len(head))
            self.size = limit
        self._order = np.argsort(self.code_of[:entries], kind="stable")
        sums = np.concatenate([[0], np.cumsum(counts[self._order])])
        self._edges = sums[np.searchsorted(self.code_of[self._order], np.arange(self.size + 1))]
        self._sums = sums
        self.num_rows_by_code = np.diff(self._edges)  # rows of each code, int64 (size,)

    @staticmethod
    def count(column: Column, values: pa.Array) -> np.ndarray:
        """The counts of a conforming column."""
        return np.bincount(category_numbers(column, values), minlength=len(column.categories) + 1).astype(np.int64)

    def encode(self, values: pa.Array) -> np.ndarray:
        """int32 codes of a conforming column."""
        return self.code_of[category_numbers(self.column, values)]

    def code(self, value: str) -> int | None:
        """The code of a category; None if no training row has it."""
        place = pc.index(self._values, value).as_py()
        return int(self.code_of[place]) if self.counts[place] else None

    def decode(self, codes: np.ndarray, levels: np.ndarray) -> pa.Array:
        """Categories of codes that have training rows; `levels`, in [0, 1), draw among those that share a code."""
        if self.is_capped:
            ranks = self._edges[codes] + (levels * self.num_rows_by_code[codes]).astype(np.int64)
            places = self._order[np.searchsorted(self._sums, ranks, side="right") - 1]
        else:
            places = codes
        return self._values.take(pa.array(places, mask=places == len(self._values)))


def category_numbers(column: Column, values: pa.Array) -> np.ndarray:
    """int32 places in `column.categories`; missing values have the place after the last."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    places = pc.index_in(values, value_set=pa.array(column.categories, pa.string()))
    numbers: np.ndarray = places.fill_null(len(column.categories)).to_numpy(zero_copy_only=False).astype(np.int32)
    return numbers
