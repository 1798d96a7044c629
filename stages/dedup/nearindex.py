"""The index of kept rows by meaning: the first owner of a vector within a given cosine.

It has the interface of `stages.dedup.bandindex.BandIndex`. Its keys are not hashes but the vectors themselves, eight
int8 numbers a key. Actors share the rows, not the keys: each holds some rows whole, and the smallest answer counts.

The search is exact. Inner products of integers are exact, so whether a pair is near does not depend on the order of
rows, blocks, queries or actors. The first numbers of all pairs are multiplied in blocks; a proven bound on the others
leaves few pairs, and these are computed in full (stages/kernels/nearpairs.py). Where the bound leaves many, whole
vectors are multiplied. Time grows with the kept rows (docs/benchmarks.md). Memory is d + 16 bytes a kept row: 400 with
the 384 numbers of MiniLM.
"""

import numpy as np

from gristmill.stages.dedup import products
from gristmill.stages.dedup.bandindex import NOBODY, check_keys, check_owners
from gristmill.stages.dedup.nearrows import Rows, RowStore
from gristmill.stages.dedup.products import Products
from gristmill.stages.embeddings import dots, norms

QUERY_ROWS, BLOCK = 512, 384  # queried and kept rows in one product; a power of two would crowd few lines of the cache
MAX_BLOCKS = 15  # blocks that are one where few rows are queried; an odd number, for the same reason
SLACK = 1e-6  # covers the rounding of the root: inner products are integers, so a value this close to a limit equals it
MARGIN = 2.0**-18  # a cosine; the float32 bound of a pair errs by less than 2^-20 of the product of its norms
OPEN_SHARE, MIN_OPEN = 32, 512  # if the bound leaves more than one pair in 32, whole vectors are multiplied
INT8_ROWS = 65536  # kept rows from which on it is worth to import torch for products of int8
UNLIKE, HEAD_STEP = 0.2, 64  # see `head_of`
NONE = np.iinfo(np.int64).max


class NearIndex:
    """Owners (ask numbers) by vector. Not thread-safe. Pickles with its contents."""

    def __init__(self, num_keys: int, dimension: int, threshold: float) -> None:
        if not 0 <= 8 * num_keys - dimension < 8:
            raise ValueError(f"{num_keys} keys cannot hold vectors of {dimension} numbers")
        self.num_keys, self.dimension, self.threshold = num_keys, dimension, threshold
        self._rows = RowStore(dimension, head_of(dimension, threshold))
        self._last_owner = NOBODY

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, including reserved room."""
        return self._rows.nbytes

    def reserve(self, num_rows: int) -> None:
        """Do nothing: this index grows without moving a row."""

    def query(self, keys: np.ndarray) -> np.ndarray:
        """The smallest owner within the cosine `threshold` of each row's vector, -1 if there is none: int64 (n,).

        `keys` is uint64 (n, num_keys).
        """
        vectors = vectors_of(check_keys(keys, self.num_keys), self.dimension)
        best = np.full(len(vectors), NONE)
        searches = [
            Search(vectors[start : start + QUERY_ROWS], best[start : start + QUERY_ROWS], self._rows.head)
            for start in range(0, len(vectors), QUERY_ROWS)
        ]
        if self.num_rows >= INT8_ROWS and products.is_int8_exact():
            with products.one_thread():
                self._search(searches, products.Int8Products(), products.Int8Products())
        else:
            self._search(searches, products.FloatProducts(self.dimension), products.FloatProducts(self.dimension))
        return np.where(best < NONE, best, NOBODY)

    def _search(self, searches: list["Search"], heads: Products, tails: Products) -> None:
        num_queries = max((len(search) for search in searches), default=1)
        for rows in self._rows.blocks(BLOCK * min(QUERY_ROWS // num_queries | 1, MAX_BLOCKS)):
            for search in searches:
                search.lower(rows, self.threshold, heads, tails)

    def insert(self, keys: np.ndarray, owners: np.ndarray, is_settled: bool = False) -> None:
        """Insert keys, uint64 (n, num_keys), for owners, int64 (n,); skips owners that are already in the index.

        Raises ValueError for invalid owners.
        """
        keys, owners = check_keys(keys, self.num_keys), check_owners(keys, owners)
        if not len(owners):
            return
        vectors = vectors_of(keys, self.dimension)
        if owners.min() <= self._last_owner:  # claims that are sent again; claims of later lots need no search
            is_fresh = ~self._rows.has(owners)
            vectors, owners = vectors[is_fresh], owners[is_fresh]
        self._rows.append(self._rows.part(vectors, owners))
        self._last_owner = max(self._last_owner, int(owners.max(initial=NOBODY)))

    def retract(self, keys: np.ndarray, owners: np.ndarray) -> None:
        """Remove the rows of these owners, as if they had never been kept."""
        self._rows.remove(check_owners(keys, owners))

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
            is_original = np.zeros(len(rows), bool)
            for at, row in enumerate(rows.tolist()):
                twins = np.flatnonzero(near[at] & is_original)
                if len(twins):
                    answers[row] = first_owner + rows[twins[0]]
                else:
                    is_original[at] = True
            self.insert(keys[rows[is_original]], first_owner + rows[is_original])
        return answers


class Search:
    """Some queried vectors, int8 (n, d), and the smallest owner near each so far, `best`, int64 (n,)."""

    def __init__(self, vectors: np.ndarray, best: np.ndarray, head: int) -> None:
        self._heads, self._tails = vectors[:, :head].copy(), vectors[:, head:].copy()
        self._sizes = norms(vectors), norms(self._tails)
        self._best = best
        self._is_whole = head == vectors.shape[1]  # whether the bound is given up, or was never of use

    def __len__(self) -> int:
        return len(self._best)

    def lower(self, rows: Rows, threshold: float, heads: Products, tails: Products) -> None:
        """Lower `best` by these kept rows."""
        pairs = heads(self._heads, rows.heads)
        if not self._is_whole:
            self._is_whole = not self._finish(pairs, rows, threshold, False)
            if not self._is_whole:
                return
        if self._tails.shape[1]:
            pairs += tails(self._tails, rows.tails)
        self._finish(pairs, rows, threshold, True)

    def _finish(self, pairs: np.ndarray, rows: Rows, threshold: float, is_whole: bool) -> bool:
        """Lower `best` by the products of heads or of whole vectors; False if the bound leaves too many pairs."""
        from gristmill.stages.kernels.nearpairs import lower_owners

        most_open = pairs.size if is_whole else max(pairs.size // OPEN_SHARE, MIN_OPEN)
        limits = threshold, SLACK, MARGIN, most_open
        return bool(lower_owners(pairs, is_whole, self._tails, *self._sizes, *limits, *rows.columns, self._best))


def head_of(dimension: int, threshold: float) -> int:
    """Numbers of a vector that are multiplied for all pairs; the bound covers the rest.

    Where the first numbers hold their share of a vector, a pair stays open if the cosine of its heads is above
    1 - (1 - threshold) / share. The share is such that this is 1 - UNLIKE: unlike texts lie far below.
    """
    steps = round((1 - threshold) / UNLIKE * dimension / HEAD_STEP, 6)
    head = HEAD_STEP * max(1, int(np.ceil(steps)))
    return head if 3 * head <= 2 * dimension else dimension


def keys_of(vectors: np.ndarray) -> np.ndarray:
    """uint64 (n, keys) that hold int8 (n, d): eight numbers a key, padded with zeros."""
    padded = np.zeros((len(vectors), -(-vectors.shape[1] // 8) * 8), np.int8)
    padded[:, : vectors.shape[1]] = vectors
    return padded.view("<u8").astype(np.uint64)


def vectors_of(keys: np.ndarray, dimension: int) -> np.ndarray:
    """The int8 (n, dimension) that `keys_of` was given."""
    return np.ascontiguousarray(np.ascontiguousarray(keys, "<u8").view(np.int8)[:, :dimension])
