"""The index of kept rows when memory runs out: Bloom filters, one a band. It knows that a row is like an earlier one,
not which.

The idea is LSHBloom's (Khan et al., arXiv:2411.04257; `MinHashLSHBloom` in datasketch): a filter in place of each
band's table. A row that is like a kept row is always found; a fresh row is called a duplicate by mistake with a chance
that grows with the fill and is `error` when `num_rows` rows are in. That is over all bands, so each filter is made for
1 - (1 - error)^(1/bands).

The filters are blocked (Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): all k
bits of a key lie in one block of 512, so a key costs one cache miss instead of k. A block holds i keys with a Poisson
chance, and then shows a fresh key's bits as set with the chance E[(x/512)^k], where x bits are set by k*i draws with
repeats. Both are computed, the latter from the recursion of the occupancy problem, and the cheapest k is taken. The
price beside a classic filter, which takes 1.44 log2(1/error) bits a key: 15 % more bits at an error of 0.001 over 9
bands (21.75 a key, 24.5 bytes a row), 24 % at 0.0001, 35 % at 0.00001.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gristmill.stages.dedup.bandindex import NOBODY, UNKNOWN, check_keys, check_owners

BLOCK_BITS = 512
MAX_HASHES = 24
MAX_KEYS = 256  # of a block that is looked at: at 4 bits a key the mean is 128
STEPS_PER_BIT = 4  # bits a key come in quarters: a rounding error somewhere must not change the filter
MIN_BITS, MAX_BITS = 4, 128


@lru_cache(maxsize=64)
def _in_block(num_hashes: int) -> np.ndarray:
    """The chance that a fresh key is found in a block with i keys, for i in 0..MAX_KEYS: float64 (MAX_KEYS + 1,)."""
    share = np.arange(BLOCK_BITS + 1) / BLOCK_BITS
    chance = np.zeros(BLOCK_BITS + 1)  # of so many bits set
    chance[0] = 1.0
    found = np.empty(MAX_KEYS + 1)
    for keys in range(MAX_KEYS + 1):
        found[keys] = (chance * share**num_hashes).sum()
        for _ in range(num_hashes):
            chance[1:] = chance[1:] * share[1:] + chance[:-1] * (1 - share[:-1])
            chance[0] = 0.0
    return found


def key_error(bits_per_key: float, num_hashes: int) -> float:
    """The chance that one filter, filled to so many bits a key, claims to hold a fresh key."""
    mean = BLOCK_BITS / bits_per_key
    keys = np.arange(MAX_KEYS + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(keys[1:]))])
    poisson = np.exp(keys * math.log(mean) - mean - logs)
    rest = max(0.0, 1 - float(poisson.sum()))  # blocks beyond MAX_KEYS are taken as full
    return min(1.0, float((poisson * _in_block(num_hashes)).sum()) + rest)


def over_bands(error: float, num_bands: int) -> float:
    """The chance that at least one of `num_bands` filters errs, each with the chance `error`."""
    return -math.expm1(num_bands * math.log1p(-error)) if error < 1 else 1.0


@lru_cache(maxsize=64)
def shape(error: float, num_bands: int) -> tuple[float, int]:
    """(bits a key, hashes a key) of each band's filter, so that all bands together err with the chance `error`.

    Raises ValueError for an error that no filter here can keep.
    """
    wanted = -math.expm1(math.log1p(-error) / num_bands)
    low, high = MIN_BITS * STEPS_PER_BIT, MAX_BITS * STEPS_PER_BIT
    if _best(high / STEPS_PER_BIT)[0] > wanted:
        raise ValueError(f"an error of {error} is too small for a filter")
    while low < high:
        middle = (low + high) // 2
        if _best(middle / STEPS_PER_BIT)[0] <= wanted:
            high = middle
        else:
            low = middle + 1
    return low / STEPS_PER_BIT, _best(low / STEPS_PER_BIT)[1]


@lru_cache(maxsize=256)
def _best(bits_per_key: float) -> tuple[float, int]:
    """(error, hashes) of the number of hashes that errs least."""
    return min((key_error(bits_per_key, k), k) for k in range(1, MAX_HASHES + 1))


class BloomIndex:
    """A filter for each of `num_bands` out of `bands_in_all` bands, made for `num_rows` rows and `error` over all.

    The bits depend on the claims alone, not on their order or on how bands are spread. Not thread-safe.
    """

    def __init__(self, num_bands: int, num_rows: int, error: float, bands_in_all: int) -> None:
        bits, self.num_hashes = shape(error, bands_in_all)
        self.num_bands = num_bands
        num_blocks = max(1, math.ceil(num_rows * bits / BLOCK_BITS))
        words = num_blocks * (BLOCK_BITS // 64)
        self._filters = _on_cache_lines(num_bands * words).reshape(num_bands, words)
        # What the claims that may be retracted have changed: (first owner, last owner, numbers of the bits they set).
        self._undo: list[tuple[int, int, np.ndarray]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the filters."""
        return self._filters.nbytes

    def reserve(self, num_rows: int) -> None:
        """Filters are made for all their rows at once."""

    def query(self, keys: np.ndarray) -> np.ndarray:
        """UNKNOWN for each row of keys, uint64 (n, num_bands), that has one in a filter, else -1: int64 (n,)."""
        from gristmill.stages.kernels import bloom as kernel

        found = np.full(len(keys), NOBODY, np.int64)
        kernel.query(self._filters, self.num_hashes, check_keys(keys, self.num_bands), found, UNKNOWN)
        return found

    def insert(self, keys: np.ndarray, owners: np.ndarray, is_settled: bool = False) -> None:
        """Put each row's keys, uint64 (n, num_bands), into the filters.

        Unless `is_settled`, it is noted how to take these claims, as one, back: 8 bytes a bit until `settle`.
        """
        from gristmill.stages.kernels import bloom as kernel

        keys, owners = check_keys(keys, self.num_bands), check_owners(keys, owners)
        if not len(owners):
            return
        fresh = np.empty(0 if is_settled else keys.size * self.num_hashes, np.uint64)
        count = kernel.insert(self._filters, self.num_hashes, keys, fresh)
        if not is_settled:
            self._undo.append((int(owners.min()), int(owners.max()), fresh[:count].copy()))

    def retract(self, keys: np.ndarray, owners: np.ndarray) -> None:
        """Take back the latest claims: those by the smallest of `owners` and by every later owner.

        Exact, as bits are unset that no earlier claim had set. Raises ValueError for claims that are settled, or that
        were inserted together with others that stay.
        """
        from gristmill.stages.kernels import bloom as kernel

        if not len(owners):
            return
        first = int(np.min(owners))
        taken = [entry for entry in self._undo if entry[1] >= first]
        if not taken or min(entry[0] for entry in taken) < first:
            raise ValueError(f"the claims from owner {first} on cannot be taken back")
        self._undo = [entry for entry in self._undo if entry[1] < first]
        for _, _, fresh in taken:
            kernel.clear(self._filters.reshape(-1), fresh)

    def settle(self, first_owner: int) -> None:
        """Forget how to take back claims by owners below `first_owner`."""
        self._undo = [entry for entry in self._undo if entry[1] >= first_owner]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        stored = self._filters
        self._filters = _on_cache_lines(stored.size).reshape(stored.shape)
        self._filters[:] = stored


def _on_cache_lines(num_words: int) -> np.ndarray:
    """uint64 zeros whose first byte begins a cache line, so that each block is one."""
    room = np.zeros(num_words + 7, np.uint64)
    start = -(room.ctypes.data // 8) % 8
    return room[start : start + num_words]
