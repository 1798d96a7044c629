"""The locality-sensitive index of kept rows: who was first to have this band of a signature?

Row by row it answers as a plain pass over datasketch's `MinHashLSH` would: query; on any hit the row is a duplicate,
else insert it. Between lots the index answers (`query`), within a lot `resolve` does, so that a lot needs one round
trip. A band is a table of its own, hence several indexes can each hold a slice of the bands: `merged` makes one answer
of theirs.

Arithmetic: a slot takes 13 bytes (key 8, owner 5). A band is 64 tables of staggered sizes, each filled to 0.8 and
grown by 1.3, so their fills lie between 0.615 and 0.8 and a row takes 16.3 to 21.1 bytes a band, 18.6 on average: 168
with the 9 bands of threshold 0.8 at 128 permutations. One table grows at a time, which takes a 50th of a band more for
a moment.
"""

from typing import Any

import numpy as np

SLOT_BYTES = 13
MAX_LOAD = 0.8
GROWTH = 1.3
MIN_SLOTS = 64
MAX_OWNER = (1 << 40) - 2  # a slot holds the owner plus one in 40 bits
NOBODY = -1
UNKNOWN = -2  # somebody, but it cannot be told who (see gristmill.stages.dedup.bloomindex)


class BandIndex:
    """Owners (ask ordinals, 0 to MAX_OWNER) by band key, exactly and in memory, for `num_bands` bands.

    Not thread-safe. Pickles with its contents. Keys come from `stages.dedup.minhash.band_keys`; any uint64 will do.
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
        """Distinct keys of the fullest band: the rows inserted where no two share a key, as kept rows never do."""
        return int(self._counts.sum(axis=1).max())

    @property
    def nbytes(self) -> int:
        """Bytes of all tables, empty slots included."""
        return int(self._sizes.sum()) * SLOT_BYTES

    def reserve(self, num_rows: int) -> None:
        """Make room for `num_rows` rows in all, so that loading them moves nothing."""
        self._stagger(num_rows / self._num_parts / MAX_LOAD)

    def query(self, keys: np.ndarray) -> np.ndarray:
        """The smallest owner that shares a key with each row in any band, -1 where none: int64 (n,).

        `keys` is uint64 (n, num_bands), contiguous or not.
        """
        from gristmill.stages.kernels import bandindex as kernel

        found = np.full(len(keys), NOBODY, np.int64)
        kernel.query(self._bases, self._sizes, check_keys(keys, self.num_bands), found)
        return found

    def insert(self, keys: np.ndarray, owners: np.ndarray, is_settled: bool = False) -> None:
        """Let each row's owner, int64 (n,), claim its keys, uint64 (n, num_bands); a taken key keeps the smaller owner.

        `is_settled` promises that the claims will not be retracted, which does not matter here. Raises ValueError for
        an owner outside 0 to MAX_OWNER, before anything is inserted.
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
        """Forget these claims, as if they had never been made; keys that other owners hold stay theirs.

        True to that only if no other row claimed one of these keys in vain, as in a run no kept row ever does.
        """
        from gristmill.stages.kernels import bandindex as kernel

        keys, owners = check_keys(keys, self.num_bands), check_owners(keys, owners)
        for band in range(self.num_bands):
            kernel.remove(self._bases, self._sizes, self._counts, keys, owners, band)

    def settle(self, first_owner: int) -> None:
        """Claims by owners below `first_owner` will not be retracted: nothing to forget here."""

    def _stagger(self, num_slots: float) -> None:
        """Bring every table to `num_slots` or more, the last of a band to 1.3 times that, so that they grow in turn."""
        for band in range(self.num_bands):
            for part in range(self._num_parts):
                wanted = int(num_slots * GROWTH ** (part / self._num_parts)) + 1
                if wanted > self._sizes[band, part]:
                    self._resize(band, part, wanted)

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
                self._tables[band][part] = table = table.copy()  # what was unpickled may not be ours to write
                self._bases[band, part] = table.ctypes.data


def check_keys(keys: np.ndarray, num_bands: int) -> np.ndarray:
    """`keys` in one of the two layouts that kernels are compiled for. Raises ValueError for another shape or type."""
    if keys.ndim != 2 or keys.shape[1] != num_bands or keys.dtype != np.uint64:
        raise ValueError(f"keys must be uint64 (n, {num_bands}), not {keys.dtype} {keys.shape}")
    return keys if keys.flags.f_contiguous and not keys.flags.c_contiguous else np.ascontiguousarray(keys)


def check_owners(keys: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """`owners` as int64, one for each row of keys. Raises ValueError."""
    owners = np.ascontiguousarray(owners, np.int64)
    if owners.shape != (len(keys),):
        raise ValueError(f"{len(keys)} rows of keys but owners of shape {owners.shape}")
    if len(owners) and not (owners.min() >= 0 and owners.max() <= MAX_OWNER):
        raise ValueError(f"owners must lie in 0 to {MAX_OWNER}, not {owners.min()} to {owners.max()}")
    return owners


def merge_answers(answers: list[np.ndarray]) -> np.ndarray:
    """One answer, int64 (n,), of several slices of the bands: the smallest owner, else UNKNOWN where any says so."""
    whole = answers[0].copy()
    for found in answers[1:]:
        is_better = (found >= 0) & ((whole < 0) | (found < whole)) | ((whole == NOBODY) & (found == UNKNOWN))
        whole[is_better] = found[is_better]
    return whole


def resolve(keys: np.ndarray, found: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
    """Verdicts on the rows of one lot, in row order: int64 (n,), the owner that a row duplicates, -1 = kept or dead.

    `keys` uint64 (n, all bands); `found` int64 (n,) what `query` answered over all bands; `alive` bool (n,);
    `first_owner` the owner that row 0 would be. A living row duplicates `found` where that is >= 0, else the first
    kept row before it that shares a key in any band, else UNKNOWN where `found` says so; dead rows and duplicates claim
    nothing. The caller then inserts the kept rows (alive and -1) with owners first_owner + row.
    """
    from gristmill.stages.kernels import resolve as kernel

    num_rows, num_bands = keys.shape
    num_slots = 1 << max(2 * num_rows, 2).bit_length()
    slots = np.empty((num_bands, num_slots), np.uint64)
    rows = np.full((num_bands, num_slots), -1, np.int32)
    answers = np.empty(num_rows, np.int64)
    found, alive = np.ascontiguousarray(found, np.int64), np.ascontiguousarray(alive, np.bool_)
    kernel.resolve_rows(np.ascontiguousarray(keys, np.uint64), found, alive, first_owner, slots, rows, answers)
    return answers
