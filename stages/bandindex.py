"""The locality-sensitive index of kept rows: who was first to have this band of a signature?

Row by row it answers as a plain pass over datasketch's `MinHashLSH` would: query; on any hit the row is a duplicate,
else insert it. Between lots the index answers (`query`), within a lot `resolve` does, so that a lot needs one round
trip. A band is a table of its own, hence several indexes can each hold a slice of the bands: the smallest
non-negative of their answers is the answer of the whole.

Arithmetic: a slot takes 13 bytes (key 8, owner 5); tables are filled to 0.8 and grow by 1.3, so the fill is between
0.615 and 0.8 and a row takes 16.3 to 21.1 bytes a band: 146 to 190 with the 9 bands of threshold 0.8 at 128
permutations. A growing band holds its old and new table at once, one band at a time.
"""

import numpy as np

MAX_LOAD = 0.8
GROWTH = 1.3
MIN_SLOTS = 64
MAX_OWNER = (1 << 40) - 2  # all ones mark an empty slot
NOBODY = -1

Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def _table(num_slots: int) -> Table:
    """An empty table: keys uint64, owners' low uint32 and high uint8, each (num_slots,)."""
    keys = np.zeros(num_slots, np.uint64)
    return keys, np.full(num_slots, 0xFFFFFFFF, np.uint32), np.full(num_slots, 0xFF, np.uint8)


class BandIndex:
    """Owners (ask ordinals, 0 to MAX_OWNER) by band key, exactly and in memory, for `num_bands` bands.

    Not thread-safe. Pickles with its contents. Keys come from `stages.minhash.band_keys`; any uint64 will do.
    """

    def __init__(self, num_bands: int) -> None:
        if num_bands < 1:
            raise ValueError(f"num_bands must be at least 1, not {num_bands}")
        self.num_bands = num_bands
        self._tables = [_table(MIN_SLOTS) for _ in range(num_bands)]
        self._counts = [0] * num_bands

    @property
    def num_rows(self) -> int:
        """Distinct keys of the fullest band: the rows inserted where no two share a key, as kept rows never do."""
        return max(self._counts)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables, empty slots included."""
        return sum(part.nbytes for table in self._tables for part in table)

    def query(self, keys: np.ndarray) -> np.ndarray:
        """The smallest owner that shares a key with each row in any band, -1 where none: int64 (n,).

        `keys` is uint64 (n, num_bands), contiguous or not.
        """
        from stages.kernels import bandindex as kernel

        keys = self._checked(keys)
        found = np.full(len(keys), NOBODY, np.int64)
        for band, table in enumerate(self._tables):
            kernel.query_band(*table, keys, band, found)
        return found

    def insert(self, keys: np.ndarray, owners: np.ndarray) -> None:
        """Let each row's owner, int64 (n,), claim its keys, uint64 (n, num_bands); a taken key keeps the smaller owner.

        Raises ValueError for an owner outside 0 to MAX_OWNER, before anything is inserted.
        """
        from stages.kernels import bandindex as kernel

        keys = self._checked(keys)
        owners = np.ascontiguousarray(owners, np.int64)
        if owners.shape != (len(keys),):
            raise ValueError(f"{len(keys)} rows of keys but owners of shape {owners.shape}")
        if len(owners) and not (owners.min() >= 0 and owners.max() <= MAX_OWNER):
            raise ValueError(f"owners must lie in 0 to {MAX_OWNER}, not {owners.min()} to {owners.max()}")
        for band in range(self.num_bands):
            start = 0
            while True:
                table = self._tables[band]
                room = int(len(table[0]) * MAX_LOAD) - self._counts[band]
                start, added = kernel.insert_band(*table, keys, band, owners, start, room)
                self._counts[band] += added
                if start == len(keys):
                    break
                self._rehash(band, int(len(table[0]) * GROWTH) + 1)

    def retract(self, first_owner: int) -> None:
        """Forget every claim by `first_owner` or a later one, as if these rows had never been inserted.

        True to that only if no earlier owner came after one of them with the same key, as in a run they never do.
        """
        for band in range(self.num_bands):
            self._rehash(band, len(self._tables[band][0]), first_owner)

    def _rehash(self, band: int, num_slots: int, stop: int = MAX_OWNER + 1) -> None:
        from stages.kernels import bandindex as kernel

        grown = _table(num_slots)
        self._counts[band] = kernel.rehash(*self._tables[band], *grown, stop)
        self._tables[band] = grown

    def _checked(self, keys: np.ndarray) -> np.ndarray:
        if keys.ndim != 2 or keys.shape[1] != self.num_bands or keys.dtype != np.uint64:
            raise ValueError(f"keys must be uint64 (n, {self.num_bands}), not {keys.dtype} {keys.shape}")
        return np.ascontiguousarray(keys)


def resolve(keys: np.ndarray, found: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
    """Verdicts on the rows of one lot, in row order: int64 (n,), the owner that a row duplicates, -1 = kept or dead.

    `keys` uint64 (n, all bands); `found` int64 (n,) what `query` answered over all bands; `alive` bool (n,);
    `first_owner` the owner that row 0 would be. A living row duplicates `found` where that is >= 0, else the first
    kept row before it that shares a key in any band; dead rows and duplicates claim nothing. The caller then inserts
    the kept rows (alive and -1) with owners first_owner + row.
    """
    from stages.kernels import bandindex as kernel

    num_rows, num_bands = keys.shape
    num_slots = 1 << max(2 * num_rows, 2).bit_length()
    slots = np.empty((num_bands, num_slots), np.uint64)
    rows = np.full((num_bands, num_slots), -1, np.int32)
    answers = np.empty(num_rows, np.int64)
    found, alive = np.ascontiguousarray(found, np.int64), np.ascontiguousarray(alive, np.bool_)
    kernel.resolve_rows(np.ascontiguousarray(keys, np.uint64), found, alive, first_owner, slots, rows, answers)
    return answers
