"""The kept rows of the index by meaning: chunks that grow by new chunks, so that no row is ever copied to make room."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gristmill.stages.embeddings import norms

MIN_ROOM, MAX_ROOM = 1536, 15360  # rows in the first and in the largest chunk: whole blocks of the search


@dataclass
class Rows:
    """Some kept rows, parted for the search: heads int8 (n, h), tails int8 (n, d - h), norms, norms of tails, owners.

    The norms are float32 (n,): they only bound products. `owners` are int64 (n,).
    """

    heads: np.ndarray
    tails: np.ndarray
    norms: np.ndarray
    tail_norms: np.ndarray
    owners: np.ndarray

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.heads, self.tails, self.norms, self.tail_norms, self.owners

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, part: slice | np.ndarray) -> "Rows":
        return Rows(*(column[part] for column in self.columns))


class RowStore:
    """Rows in the order of their insertion. Pickles with its contents."""

    def __init__(self, dimension: int, head: int) -> None:
        self.dimension, self.head = dimension, head
        self.num_rows = 0
        self._chunks: list[Rows] = []
        self._counts: list[int] = []  # rows in use of each chunk; only the last has room

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, including reserved room: dimension + 16 a row."""
        return sum(column.nbytes for chunk in self._chunks for column in chunk.columns)

    def part(self, vectors: np.ndarray, owners: np.ndarray) -> Rows:
        """Rows of int8 (n, dimension) and int64 (n,)."""
        tails = vectors[:, self.head :]
        sizes, tail_sizes = norms(vectors).astype(np.float32), norms(tails).astype(np.float32)
        return Rows(vectors[:, : self.head].copy(), tails.copy(), sizes, tail_sizes, owners)

    def append(self, rows: Rows) -> None:
        start = 0
        while start < len(rows):
            if not self._chunks or self._counts[-1] == len(self._chunks[-1]):
                self._chunks.append(self._room(min(max(self.num_rows, MIN_ROOM), MAX_ROOM)))
                self._counts.append(0)
            chunk, count = self._chunks[-1], self._counts[-1]
            fresh = rows[start : start + len(chunk) - count]
            for column, values in zip(chunk.columns, fresh.columns):
                column[count : count + len(fresh)] = values
            self._counts[-1] += len(fresh)
            self.num_rows += len(fresh)
            start += len(fresh)

    def _room(self, num_rows: int) -> Rows:
        heads, tails = (np.empty((num_rows, size), np.int8) for size in (self.head, self.dimension - self.head))
        sizes, tail_sizes = (np.empty(num_rows, np.float32) for _ in range(2))
        return Rows(heads, tails, sizes, tail_sizes, np.empty(num_rows, np.int64))

    def blocks(self, size: int) -> Iterator[Rows]:
        """All rows, at most `size` at a time, as views."""
        for chunk, count in zip(self._chunks, self._counts):
            for start in range(0, count, size):
                yield chunk[start : min(start + size, count)]

    def has(self, owners: np.ndarray) -> np.ndarray:
        """bool (n,): which of these owners have a row."""
        present = [rows.owners[rows.owners >= owners.min()] for rows in self.blocks(MAX_ROOM)]
        return np.isin(owners, np.concatenate([*present, owners[:0]]))

    def remove(self, owners: np.ndarray) -> None:
        """Remove the rows of these owners. Costs little if they are among the last."""
        kept: list[Rows] = []
        for number, (chunk, count) in enumerate(zip(self._chunks, self._counts)):
            stays = ~np.isin(chunk.owners[:count], owners)
            if kept or not stays.all():
                kept.append(chunk[:count][stays])
                self._counts[number] = 0
        first = len(self._chunks) - len(kept)
        del self._chunks[first:], self._counts[first:]
        self.num_rows = sum(self._counts)
        for rows in kept:
            self.append(rows)
