"""The exact index of kept rows: the first owner of each band key.

Row by row it answers as a pass over datasketch's `MinHashLSH` would: query; if there is a hit, the row is a duplicate,
otherwise insert it. The index (`query`) answers between lots and `resolve` within a lot, so a lot needs one round trip.
Each band is a separate table, so several indexes can each hold some of the bands; `merge_answers` combines them.

Memory: a slot takes 13 bytes (key 8, owner 5). A band is 64 tables of staggered sizes, each filled to at most 0.8 and
grown by 1.3, so their fills lie between 0.615 and 0.8. A row takes 16.3 to 21.1 bytes a band, 18.6 on average: 168
bytes with the 9 bands of threshold 0.8 at 128 permutations. One table grows at a time, which briefly takes another 50th
of a band.
"""

from typing import Any

import numpy as np

SLOT_BYTES = 13
MAX_LOAD = 0.8
GROWTH = 1.3
MIN_SLOTS = 64
MAX_OWNER = (1 << 40) - 2  # a slot holds the owner plus one in 40 bits
NOBODY = -1
UNKNOWN = -2  # a row that the index cannot name (see stages/dedup/bloomindex.py)


class BandIndex:
    """Owners (ask numbers, 0 to MAX_OWNER) by band key, exact and in memory, for `num_bands` bands.

    Not thread-safe. Pickles with its contents. Keys come from `stages.dedup.minhash.band_keys`; any uint64 is allowed.
    """

    def __init__(self, num_bands: int) -> None:
        from gristmill.stages.kernels.bandindex import PARTS

        if num_bands < 1:
            raise ValueError(f"num_bands must be at least 1, not {num_bands}")
        self.num_bands, self._num_parts = num_bands, PARTS
        shape = num_bands, PARTS
        self._tables: list[list[np.ndarray]] = [[np.zeros(0, np.uint8)] * PARTS for _ in range(num_bands)]
        self._bases, self._sizes = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)
        self._counts, self._rooms = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._stagger(MIN_SLOTS)

    @property
    def num_rows(self) -> int:
        """Distinct keys of the fullest band: the number of inserted rows, because kept rows share no key."""
        return int(self._counts.sum(axis=1).max())

    @property
    def nbytes(self) -> int:
        """Bytes of all tables, including empty slots."""
        return int(self._sizes.sum()) * SLOT_BYTES

    def reserve(self, num_rows: int) -> None:
        """Make room for `num_rows` rows in total, so that inserting them moves nothing."""
        self._stagger(num_rows / self._num_parts / MAX_LOAD)

    def query(self, keys: np.ndarray) -> np.ndarray:
        """The smallest owner that shares a key with each row in any band, -1 if there is none: int64 (n,).

        `keys` is uint64 (n, num_bands), contiguous or not.
        """
        from gristmill.stages.kernels import bandindex as kernel

        owners = np.full(len(keys), NOBODY, np.int64)
        kernel.query(self._bases, self._sizes, check_keys(keys, self.num_bands), owners)
        return owners

    def insert(self, keys: np.ndarray, owners: np.ndarray, is_settled: bool = False) -> None:
        """Insert keys, uint64 (n, num_bands), for owners, int64 (n,); a key that exists keeps the smaller owner.

        `is_settled` promises that the claims will not be retracted; this index ignores it. Raises ValueError for an
        owner outside 0 to MAX_OWNER, before it inserts anything.
        """
        from gristmill.stages.kernels import bandindex as kernel

        keys, owners = check_keys(keys, self.num_bands), check_owners(keys, owners)
        for band in range(self.num_bands):
            start = 0
            while True:
                start = kernel.insert(self._bases, self._sizes, self._counts, self._rooms, keys, owners, band, start)
                if start == len(keys):
                    break
                part = int(kernel.part_of(keys[start, band]))
                self._resize(band, part, int(int(self._sizes[band, part]) * GROWTH) + 1)

    def retract(self, keys: np.ndarray, owners: np.ndarray) -> None:
        """Remove these claims, as if they had never been made; keys that other owners hold stay theirs.

        This is exact only if no other row tried to claim one of these keys; in a run, no kept row ever does.
        """
        from gristmill.stages.kernels import bandindex as kernel

        keys, owners = check_keys(keys, self.num_bands), check_owners(keys, owners)
        for band in range(self.num_bands):
            kernel.remove(self._bases, self._sizes, self._counts, keys, owners, band)

    def settle(self, first_owner: int) -> None:
        """Owners below `first_owner` will not be retracted; this index keeps no undo data."""

    def _stagger(self, num_slots: float) -> None:
        """Grow every table to at least `num_slots`, the last of a band to 1.3 times that, so that they grow in turn."""
        for band in range(self.num_bands):
            for part in range(self._num_parts):
                size = int(num_slots * GROWTH ** (part / self._num_parts)) + 1
                if size > self._sizes[band, part]:
                    self._resize(band, part, size)

    def _resize(self, band: int, part: int, num_slots: int) -> None:
        from gristmill.stages.kernels import bandindex as kernel

        grown = np.zeros(num_slots * SLOT_BYTES, np.uint8)
        place, size = np.uint64(grown.ctypes.data), np.uint64(num_slots)
        kernel.rehash(self._bases[band, part], self._sizes[band, part], place, size)
        self._tables[band][part] = grown
        self._bases[band, part], self._sizes[band, part] = place, size
        self._rooms[band, part] = int(num_slots * MAX_LOAD)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for band, tables in enumerate(self._tables):
            for part, table in enumerate(tables):
                self._tables[band][part] = table = table.copy()  # unpickled buffers may be read-only
                self._bases[band, part] = table.ctypes.data


def check_keys(keys: np.ndarray, num_bands: int) -> np.ndarray:
    """`keys` in one of the two layouts that the kernels are compiled for.

    Raises ValueError for another shape or type.
    """
    if keys.ndim != 2 or keys.shape[1] != num_bands or keys.dtype != np.uint64:
        raise ValueError(f"keys must be uint64 (n, {num_bands}), not {keys.dtype} {keys.shape}")
    return keys if keys.flags.f_contiguous and not keys.flags.c_contiguous else np.ascontiguousarray(keys)


def check_owners(keys: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """`owners` as int64, one for each row of keys. Raises ValueError for others."""
    owners = np.ascontiguousarray(owners, np.int64)
    if owners.shape != (len(keys),):
        raise ValueError(f"{len(keys)} rows of keys but owners of shape {owners.shape}")
    if len(owners) and not (owners.min() >= 0 and owners.max() <= MAX_OWNER):
        raise ValueError(f"owners must lie in 0 to {MAX_OWNER}, not {owners.min()} to {owners.max()}")
    return owners


def merge_answers(answers: list[np.ndarray]) -> np.ndarray:
    """The common answer, int64 (n,), of indexes of some bands each: the smallest owner, else UNKNOWN if any says so."""
    merged_owners = answers[0].copy()
    for owners in answers[1:]:
        is_better = (owners >= 0) & ((merged_owners < 0) | (owners < merged_owners)) | (
            (merged_owners == NOBODY) & (owners == UNKNOWN)
        )
        merged_owners[is_better] = owners[is_better]
    return merged_owners


def resolve(keys: np.ndarray, owners: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
    """Verdicts on the rows of a lot, in row order: int64 (n,), the owner that a row duplicates; -1: kept or dead.

    `keys` is uint64 (n, all bands), `owners` int64 (n,) the answers of `query` over all bands, `alive` bool (n,), and
    `first_owner` the owner of row 0. A living row duplicates `owners[row]` if that is >= 0; otherwise the first kept
    row before it that shares a key in any band; otherwise UNKNOWN if `owners[row]` says so. Dead rows and duplicates
    claim nothing. The caller then inserts the kept rows (alive and -1) with owners first_owner + row.
    """
    from gristmill.stages.kernels import resolve as kernel

    num_rows, num_bands = keys.shape
    num_slots = 1 << max(2 * num_rows, 2).bit_length()
    slots = np.empty((num_bands, num_slots), np.uint64)
    rows = np.full((num_bands, num_slots), -1, np.int32)
    answers = np.empty(num_rows, np.int64)
    owners, alive = np.ascontiguousarray(owners, np.int64), np.ascontiguousarray(alive, np.bool_)
    kernel.resolve_rows(np.ascontiguousarray(keys, np.uint64), owners, alive, first_owner, slots, rows, answers)
    return answers
