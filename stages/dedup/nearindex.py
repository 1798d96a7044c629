"""The index of kept rows by meaning: who was first to lie within a cosine of this vector?

It answers as `stages.dedup.bandindex.BandIndex` does, for keys that are no hashes but the vectors themselves, 8
numbers of
int8 a key. Every kept row is looked at, and inner products of whole numbers are exact, so it neither misses a row nor
finds one too many, whatever the order and the size of questions. The price is time that grows with the rows kept: about
10 ms a row asked and million kept on one core, and d + 16 bytes a kept row (400 with MiniLM's 384 numbers).
"""

import numpy as np

from gristmill.stages.dedup.bandindex import NOBODY, check_keys, check_owners
from gristmill.stages.embeddings import dots, norms

BLOCK = 8192  # kept rows compared at once
MAX_ASKED = 256
SLACK = 1e-6  # inner products are whole numbers: what lies so close to a limit is at it, but for the root's rounding
GROWTH = 1.5
MIN_ROOM = 1024


class NearIndex:
    """Owners (ask ordinals) by vector. Not thread-safe. Pickles with its contents."""

    def __init__(self, num_keys: int, dimension: int, threshold: float) -> None:
        if not 0 <= 8 * num_keys - dimension < 8:
            raise ValueError(f"{num_keys} keys cannot hold vectors of {dimension} numbers")
        self.num_keys, self.dimension, self.threshold = num_keys, dimension, threshold
        self.num_rows = 0
        self._vectors = np.zeros((0, dimension), np.int8)
        self._norms, self._owners = np.zeros(0), np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        return self._vectors.nbytes + self._norms.nbytes + self._owners.nbytes

    def reserve(self, num_rows: int) -> None:
        """Make room for `num_rows` rows in all."""
        if num_rows > len(self._owners):
            more = num_rows - len(self._owners)
            self._vectors = np.concatenate([self._vectors, np.zeros((more, self.dimension), np.int8)])
            self._norms = np.concatenate([self._norms, np.zeros(more)])
            self._owners = np.concatenate([self._owners, np.zeros(more, np.int64)])

    def query(self, keys: np.ndarray) -> np.ndarray:
        """The smallest owner whose vector has a cosine of `threshold` or more with a row's, -1 where none: int64 (n,).

        `keys` is uint64 (n, num_keys).
        """
        asked = vectors_of(check_keys(keys, self.num_keys), self.dimension)
        found = np.full(len(asked), NOBODY, np.int64)
        for first in range(0, len(asked), MAX_ASKED):
            part = asked[first : first + MAX_ASKED]
            limits, best = self.threshold * norms(part), np.full(len(part), np.iinfo(np.int64).max)
            for start in range(0, self.num_rows, BLOCK):
                stop = min(start + BLOCK, self.num_rows)
                near = dots(part, self._vectors[start:stop]) >= limits[:, None] * self._norms[None, start:stop] - SLACK
                rows, places = np.nonzero(near)
                np.minimum.at(best, rows, self._owners[start + places])
            is_near = best < np.iinfo(np.int64).max
            found[first : first + len(part)][is_near] = best[is_near]
        return found

    def insert(self, keys: np.ndarray, owners: np.ndarray, is_settled: bool = False) -> None:
        """Keep rows, keys uint64 (n, num_keys), under their owners, int64 (n,); an owner that is there already stays.

        Raises ValueError for owners that cannot be.
        """
        keys, owners = check_keys(keys, self.num_keys), check_owners(keys, owners)
        if not len(owners):
            return
        there = self._owners[: self.num_rows]
        fresh = ~np.isin(owners, there[there >= owners.min()])
        vectors, owners = vectors_of(keys, self.dimension)[fresh], owners[fresh]
        stop = self.num_rows + len(owners)
        if stop > len(self._owners):
            self.reserve(max(stop, int(len(self._owners) * GROWTH), MIN_ROOM))
        self._vectors[self.num_rows : stop] = vectors
        self._norms[self.num_rows : stop] = norms(vectors)
        self._owners[self.num_rows : stop] = owners
        self.num_rows = stop

    def retract(self, keys: np.ndarray, owners: np.ndarray) -> None:
        """Forget the rows of these owners, as if they had never been kept."""
        owners = check_owners(keys, owners)
        stays = np.flatnonzero(~np.isin(self._owners[: self.num_rows], owners))
        for column in (self._vectors, self._norms, self._owners):
            column[: len(stays)] = column[stays]
        self.num_rows = len(stays)

    def settle(self, first_owner: int) -> None:
        """Nothing to forget here."""

    def resolve(self, keys: np.ndarray, found: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
        """Verdicts on the rows of some lots that follow one another, as `stages.dedup.bandindex.resolve` gives them.

        `self` is an empty index, for the rows that are kept among these.
        """
        answers = np.where(alive, found, NOBODY)
        open_rows = np.flatnonzero(alive & (found == NOBODY))
        for start in range(0, len(open_rows), MAX_ASKED):
            rows = open_rows[start : start + MAX_ASKED]
            answers[rows] = self.query(keys[rows])
            rows = rows[answers[rows] == NOBODY]
            vectors = vectors_of(np.ascontiguousarray(keys[rows]), self.dimension)
            sizes = norms(vectors)
            near = dots(vectors, vectors) >= (self.threshold * sizes)[:, None] * sizes[None, :] - SLACK
            kept: list[int] = []
            for at, row in enumerate(rows.tolist()):
                twin = next((other for other in kept if near[at, other]), None)
                if twin is None:
                    kept.append(at)
                else:
                    answers[row] = first_owner + rows[twin]
            self.insert(keys[rows[kept]], first_owner + rows[kept])
        return answers


def keys_of(vectors: np.ndarray) -> np.ndarray:
    """uint64 (n, keys) that hold int8 (n, d), 8 numbers a key, the rest zeros."""
    padded = np.zeros((len(vectors), -(-vectors.shape[1] // 8) * 8), np.int8)
    padded[:, : vectors.shape[1]] = vectors
    return padded.view("<u8").astype(np.uint64)


def vectors_of(keys: np.ndarray, dimension: int) -> np.ndarray:
    """The int8 (n, dimension) in `keys_of`."""
    return np.ascontiguousarray(np.ascontiguousarray(keys, "<u8").view(np.int8)[:, :dimension])
