"""Blocked Bloom filters over band keys: all bits of a key lie in one block of 512 bits, a cache line.

A filter is an array of uint64, a block eight of them. The high half of (mixed key) * (number of blocks) selects the
block; further mixes of the key select the bits, nine bits of the mix for each.
"""

import numpy as np
from numba import njit

from gristmill.stages.kernels.memory import high64, prefetch_at
from gristmill.stages.kernels.mixing import GOLDEN, mix

BLOCK_BITS = 512
BITS_PER_MIX = 7  # a mix of 64 bits selects seven of 512 bits
ZERO, ONE, THREE, SIX, NINE = (np.uint64(n) for n in (0, 1, 3, 6, 9))
IN_BLOCK, IN_WORD = np.uint64(511), np.uint64(63)
AHEAD = 8  # rows between the prefetch of a block and its use


@njit(cache=True, nogil=True, inline="always")
def first_word(hashes, num_blocks):  # type: ignore[no-untyped-def]
    """Index of the first word of a mixed key's block."""
    return high64(hashes, num_blocks) << THREE


@njit(cache=True, nogil=True)
def query(filters, num_hashes, keys, owners, unknown):  # type: ignore[no-untyped-def]
    """Set owners[i] to `unknown` where keys[i, band] is in the filter of any band; filters is uint64 (bands, words)."""
    num_rows, num_blocks = keys.shape[0], np.uint64(filters.shape[1] >> 3)
    for band in range(keys.shape[1]):
        words = filters[band]
        base = np.uint64(words.ctypes.data)
        for i in range(num_rows):
            if i + AHEAD < num_rows:
                prefetch_at(base + (first_word(mix(keys[i + AHEAD, band]), num_blocks) << THREE))
            hashes = mix(keys[i, band])
            word = first_word(hashes, num_blocks)
            bits = ZERO
            is_member = True
            for j in range(num_hashes):
                if j % BITS_PER_MIX == 0:
                    hashes += GOLDEN
                    bits = mix(hashes)
                at = bits & IN_BLOCK
                bits >>= NINE
                if words[word + (at >> SIX)] >> (at & IN_WORD) & ONE == ZERO:
                    is_member = False
                    break
            if is_member:
                owners[i] = unknown


@njit(cache=True, nogil=True)
def insert(filters, num_hashes, new, fresh):  # type: ignore[no-untyped-def]
    """Set the bits of new[i, band] in the filter of each band; return how many bits were not set before.

    `fresh`, uint64 with room for every bit or for none, receives the numbers of those bits, counted over all filters.
    """
    num_rows, num_words = new.shape[0], np.uint64(filters.shape[1])
    num_blocks = num_words >> THREE
    count = 0
    for band in range(new.shape[1]):
        words = filters[band]
        base = np.uint64(words.ctypes.data)
        for i in range(num_rows):
            if i + AHEAD < num_rows:
                prefetch_at(base + (first_word(mix(new[i + AHEAD, band]), num_blocks) << THREE))
            hashes = mix(new[i, band])
            block = first_word(hashes, num_blocks)
            bits = ZERO
            for j in range(num_hashes):
                if j % BITS_PER_MIX == 0:
                    hashes += GOLDEN
                    bits = mix(hashes)
                at = bits & IN_BLOCK
                bits >>= NINE
                word, bit = block + (at >> SIX), ONE << (at & IN_WORD)
                if words[word] & bit == ZERO:
                    words[word] |= bit
                    if fresh.size:
                        fresh[count] = (np.uint64(band) * num_words + word) << SIX | (at & IN_WORD)
                        count += 1
    return count


@njit(cache=True, nogil=True)
def clear(filters, fresh):  # type: ignore[no-untyped-def]
    """Unset the bits that `insert` has put into `fresh`; `filters` is flat."""
    for i in range(fresh.size):
        filters[fresh[i] >> SIX] &= ~(ONE << (fresh[i] & IN_WORD))
