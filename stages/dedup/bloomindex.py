"""The index of kept rows for limited memory: a Bloom filter for each band.

It recognises duplicates but cannot name them.

The idea is LSHBloom (Khan et al., arXiv:2411.04257; `MinHashLSHBloom` in datasketch): a filter replaces the table of
each band. It always recognises a row that duplicates a kept row. The chance that it calls a fresh row a duplicate grows
with the fill and is `error` when `num_rows` rows are inserted. That is over all bands, so each filter is sized for 1 -
(1 - error)^(1/bands).

The filters are blocked (Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): all k
bits of a key lie in one block of 512, so a key costs one cache miss instead of k. The number i of keys in a block is
Poisson distributed. A block with i keys shows all bits of a fresh key as set with the chance E[(x/512)^k], where x is
the number of bits set by k*i draws with repeats. Both are computed, the latter by the recursion of the occupancy
problem, and the cheapest k is used. Compared with a classic filter, which takes 1.44 log2(1/error) bits a key, this
costs 15 % more bits at an error of 0.001 over 9 bands (21.75 a key, 24.5 bytes a row), 24 % at 0.0001 and 35 % at
0.00001.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gristmill.stages.buffers import aligned_zeros
from gristmill.stages.dedup.bandindex import NOBODY, UNKNOWN, check_keys, check_owners

BLOCK_BITS = 512
MAX_HASHES = 24
MAX_KEYS = 256  # largest number in a block that is considered; at 4 bits a key the mean is 128
STEPS_PER_BIT = 4  # bits a key are multiples of 1/4, so that rounding errors cannot change the filter
MIN_BITS, MAX_BITS = 4, 128


@lru_cache(maxsize=64)
def _in_block(num_hashes: int) -> np.ndarray:
    """Chance that a fresh key is found in a block with i keys, for i in 0..MAX_KEYS: float64 (MAX_KEYS + 1,)."""
    share = np.arange(BLOCK_BITS + 1) / BLOCK_BITS
    chance = np.zeros(BLOCK_BITS + 1)  # of each number of set bits
    chance[0] = 1.0
    errors = np.empty(MAX_KEYS + 1)
    for keys in range(MAX_KEYS + 1):
        errors[keys] = (chance * share**num_hashes).sum()
        for _ in range(num_hashes):
            chance[1:] = chance[1:] * share[1:] + chance[:-1] * (1 - share[:-1])
            chance[0] = 0.0
    return errors


def key_error(bits_per_key: float, num_hashes: int) -> float:
    """Chance that a filter with `bits_per_key` bits for each inserted key reports a fresh key."""
    mean = BLOCK_BITS / bits_per_key
    keys = np.arange(MAX_KEYS + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(keys[1:]))])
    poisson = np.exp(keys * math.log(mean) - mean - logs)
    rest = max(0.0, 1 - float(poisson.sum()))  # blocks with more than MAX_KEYS keys count as full
    return min(1.0, float((poisson * _in_block(num_hashes)).sum()) + rest)


def over_bands(error: float, num_bands: int) -> float:
    """Chance that at least one of `num_bands` filters errs if each errs with the chance `error`."""
    return -math.expm1(num_bands * math.log1p(-error)) if error < 1 else 1.0


@lru_cache(maxsize=64)
def shape(error: float, num_bands: int) -> tuple[float, int]:
    """(bits a key, hashes a key) of the filter of each band, so that all bands together err with the chance `error`.

    Raises ValueError for an error below what these filters can reach.
    """
    band_error = -math.expm1(math.log1p(-error) / num_bands)
    low, high = MIN_BITS * STEPS_PER_BIT, MAX_BITS * STEPS_PER_BIT
    if _best(high / STEPS_PER_BIT)[0] > band_error:
        raise ValueError(f"an error of {error} is too small for a filter")
    while low < high:
        middle = (low + high) // 2
        if _best(middle / STEPS_PER_BIT)[0] <= band_error:
            high = middle
        else:
            low = middle + 1
    return low / STEPS_PER_BIT, _best(low / STEPS_PER_BIT)[1]


@lru_cache(maxsize=256)
def _best(bits_per_key: float) -> tuple[float, int]:
    """(error, hashes) of the number of hashes with the smallest error."""
    return min((key_error(bits_per_key, k), k) for k in range(1, MAX_HASHES + 1))


class BloomIndex:
    """A filter for each of `num_bands` out of `bands_in_all` bands, sized for `num_rows` rows and `error` over all.

    The bits depend only on the claims, not on their order or on the distribution of bands. Not thread-safe.
    """

    def __init__(self, num_bands: int, num_rows: int, error: float, bands_in_all: int) -> None:
        bits, self.num_hashes = shape(error, bands_in_all)
        self.num_bands = num_bands
        num_blocks = max(1, math.ceil(num_rows * bits / BLOCK_BITS))
        words = num_blocks * (BLOCK_BITS // 64)
        self._filters = aligned_zeros((num_bands, words), np.uint64)
        # Undo data of claims that may be retracted: (first owner, last owner, numbers of the bits that they set).
        self._undo: list[tuple[int, int, np.ndarray]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the filters."""
        return self._filters.nbytes

    def reserve(self, num_rows: int) -> None:
        """Do nothing: the filters have their full size from the start."""

    def query(self, keys: np.ndarray) -> np.ndarray:
        """UNKNOWN for each row of keys, uint64 (n, num_bands), with a key in a filter, else -1: int64 (n,)."""
        from gristmill.stages.kernels import bloom as kernel

        owners = np.full(len(keys), NOBODY, np.int64)
        kernel.query(self._filters, self.num_hashes, check_keys(keys, self.num_bands), owners, UNKNOWN)
        return owners

    def insert(self, keys: np.ndarray, owners: np.ndarray, is_settled: bool = False) -> None:
        """Insert each row's keys, uint64 (n, num_bands), into the filters.

        Unless `is_settled`, it also stores how to retract these claims together: 8 bytes a bit until `settle`.
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
        """Retract the latest claims: those of the smallest of `owners` and of all later owners.

        This is exact: it unsets the bits that no earlier claim had set. Raises ValueError for claims that are settled,
        or that were inserted together with claims that stay.
        """
        from gristmill.stages.kernels import bloom as kernel

        if not len(owners):
            return
        first = int(np.min(owners))
        entries = [entry for entry in self._undo if entry[1] >= first]
        if not entries or min(entry[0] for entry in entries) < first:
            raise ValueError(f"the claims from owner {first} on cannot be retracted")
        self._undo = [entry for entry in self._undo if entry[1] < first]
        for _, _, fresh in entries:
            kernel.clear(self._filters.reshape(-1), fresh)

    def settle(self, first_owner: int) -> None:
        """Drop the undo data of owners below `first_owner`."""
        self._undo = [entry for entry in self._undo if entry[1] >= first_owner]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        stored = self._filters
        self._filters = aligned_zeros(stored.shape, np.uint64)
        self._filters[:] = stored
