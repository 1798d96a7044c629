"""The codes of a category column, few enough for networks however many categories there are.

Up to `limit` categories have a code each. Beyond it the most frequent ones have, and the others share a quarter of the
codes by a hash of their number (the hashing trick, Weinberger et al. 2009): a model learns what the categories of one
code have in common, and on the way back one of them is drawn by its frequency. So a column with a million categories
costs a network no more than one with `limit`, and this table 12 bytes a category.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.readers.tables import Column

TAIL_SHARE = 0.25
GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: neighbours scatter (Knuth, The Art of Computer Programming, 6.4)


class Vocabulary:
    """`counts`, int64 (categories + 1,), says how often each was seen; the last is for missing values."""

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
        """The code of one category; None where no row had it, so that a model knows nothing of it."""
        place = pc.index(self._values, value).as_py()
        return int(self.code_of[place]) if self.counts[place] else None

    def decode(self, codes: np.ndarray, levels: np.ndarray) -> pa.Array:
        """Categories of codes that were seen; `levels`, in [0, 1), draw among those that share one."""
        if self.is_capped:
            ranks = self._edges[codes] + (levels * self.num_rows_by_code[codes]).astype(np.int64)
            places = self._order[np.searchsorted(self._sums, ranks, side="right") - 1]
        else:
            places = codes
        return self._values.take(pa.array(places, mask=places == len(self._values)))


def category_numbers(column: Column, values: pa.Array) -> np.ndarray:
    """int32 places in `column.categories`; missing values come after the last."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    places = pc.index_in(values, value_set=pa.array(column.categories, pa.string()))
    numbers: np.ndarray = places.fill_null(len(column.categories)).to_numpy(zero_copy_only=False).astype(np.int32)
    return numbers
