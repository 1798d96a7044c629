"""The index of kept rows by meaning: the first owner of a vector within a given cosine.

It has the interface of `stages.dedup.bandindex.BandIndex`. Its keys are not hashes but the vectors themselves, eight
int8 numbers a key. It compares with every kept row, and inner products of integers are exact. So it finds all such rows
and no others, whatever the order and size of queries. Time grows with the kept rows: about 10 ms for each queried row
and million kept rows on one core. Memory is d + 16 bytes a kept row (400 with the 384 numbers of MiniLM).
"""

import numpy as np

from gristmill.stages.dedup.bandindex import NOBODY, check_keys, check_owners
from gristmill.stages.embeddings import dots, norms

BLOCK = 8192  # kept rows in one comparison
QUERY_ROWS = 256  # queried rows in one comparison
SLACK = 1e-6  # covers the rounding of the root: inner products are integers, so a value this close to a limit equals it
GROWTH = 1.5
MIN_ROOM = 1024


class NearIndex:
    """Owners (ask numbers) by vector. Not thread-safe. Pickles with its contents."""

    def __init__(self, num_keys: int, dimension: int, threshold: float) -> None:
        if not 0 <= 8 * num_keys - dimension < 8:
            raise ValueError(f"{num_keys} keys cannot hold vectors of {dimension} numbers")
        self.num_keys, self.dimension, self.threshold = num_keys, dimension, threshold
        self.num_rows = 0
        self._vectors = np.zeros((0, dimension), np.int8)
        self._norms, self._owners = np.zeros(0), np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, including reserved room."""
        return self._vectors.nbytes + self._norms.nbytes + self._owners.nbytes

    def reserve(self, num_rows: int) -> None:
        """Make room for `num_rows` rows in total."""
        if num_rows > len(self._owners):
            more = num_rows - len(self._owners)
            self._vectors = np.concatenate([self._vectors, np.zeros((more, self.dimension), np.int8)])
            self._norms = np.concatenate([self._norms, np.zeros(more)])
            self._owners = np.concatenate([self._owners, np.zeros(more, np.int64)])

    def query(self, keys: np.ndarray) -> np.ndarray:
        """The smallest owner within the cosine `threshold` of each row's vector, -1 if there is none: int64 (n,).

        `keys` is uint64 (n, num_keys).
        """
        vectors = vectors_of(check_keys(keys, self.num_keys), self.dimension)
        owners = np.full(len(vectors), NOBODY, np.int64)
        for first in range(0, len(vectors), QUERY_ROWS):
            part = vectors[first : first + QUERY_ROWS]
            limits, best = self.threshold * norms(part), np.full(len(part), np.iinfo(np.int64).max)
            for start in range(0, self.num_rows, BLOCK):
                stop = min(start + BLOCK, self.num_rows)
                near = dots(part, self._vectors[start:stop]) >= limits[:, None] * self._norms[None, start:stop] - SLACK
                rows, places = np.nonzero(near)
                np.minimum.at(best, rows, self._owners[start + places])
            is_near = best < np.iinfo(np.int64).max
            owners[first : first + len(part)][is_near] = best[is_near]
        return owners

    def insert(self, keys: np.ndarray, owners: np.ndarray, is_settled: bool = False) -> None:
        """Insert keys, uint64 (n, num_keys), for owners, int64 (n,); skips owners that are already in the index.

        Raises ValueError for invalid owners.
        """
        keys, owners = check_keys(keys, self.num_keys), check_owners(keys, owners)
        if not len(owners):
            return
        present = self._owners[: self.num_rows]
        fresh = ~np.isin(owners, present[present >= owners.min()])
        vectors, owners = vectors_of(keys, self.dimension)[fresh], owners[fresh]
        stop = self.num_rows + len(owners)
        if stop > len(self._owners):
            self.reserve(max(stop, int(len(self._owners) * GROWTH), MIN_ROOM))
        self._vectors[self.num_rows : stop] = vectors
        self._norms[self.num_rows : stop] = norms(vectors)
        self._owners[self.num_rows : stop] = owners
        self.num_rows = stop

    def retract(self, keys: np.ndarray, owners: np.ndarray) -> None:
        """Remove the rows of these owners, as if they had never been kept."""
        owners = check_owners(keys, owners)
        stays = np.flatnonzero(~np.isin(self._owners[: self.num_rows], owners))
        for column in (self._vectors, self._norms, self._owners):
            column[: len(stays)] = column[stays]
        self.num_rows = len(stays)

    def settle(self, first_owner: int) -> None:
        """Do nothing: this index keeps no undo data."""

    def resolve(self, keys: np.ndarray, owners: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
        """Verdicts on the rows of consecutive lots; see `stages.dedup.bandindex.resolve`.

        `self` is an empty index, for those of the rows that are kept.
        """
        answers = np.where(alive, owners, NOBODY)
        open_rows = np.flatnonzero(alive & (owners == NOBODY))
        for start in range(0, len(open_rows), QUERY_ROWS):
            rows = open_rows[start : start + QUERY_ROWS]
            answers[rows] = self.query(keys[rows])
            rows = rows[answers[rows] == NOBODY]
            vectors = vectors_of(np.ascontiguousarray(keys[rows]), self.dimension)
            sizes = norms(vectors)
            near = dots(vectors, vectors) >= (self.threshold * sizes)[:, None] * sizes[None, :] - SLACK
            originals: list[int] = []
            for at, row in enumerate(rows.tolist()):
                twin = next((other for other in originals if near[at, other]), None)
                if twin is None:
                    originals.append(at)
                else:
                    answers[row] = first_owner + rows[twin]
            self.insert(keys[rows[originals]], first_owner + rows[originals])
        return answers


def keys_of(vectors: np.ndarray) -> np.ndarray:
    """uint64 (n, keys) that hold int8 (n, d): eight numbers a key, padded with zeros."""
    padded = np.zeros((len(vectors), -(-vectors.shape[1] // 8) * 8), np.int8)
    padded[:, : vectors.shape[1]] = vectors
    return padded.view("<u8").astype(np.uint64)


def vectors_of(keys: np.ndarray, dimension: int) -> np.ndarray:
    """The int8 (n, dimension) that `keys_of` was given."""
    return np.ascontiguousarray(np.ascontiguousarray(keys, "<u8").view(np.int8)[:, :dimension])
