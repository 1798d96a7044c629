"""Word n-grams, lines and paragraphs that a text repeats.

N-grams are grown: those of n words are looked for only where the n - 1 words before occurred twice, so that the cost
falls off as quickly as the repetition does. Hashes are of 64 bits and taken for the words themselves.
"""

from typing import Any

import numpy as np
from numba import njit

from gristmill.stages.kernels.mixing import mix

SEED, WORD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x100000001B3)
BASE = np.uint64(0xD6E8FEB86659FD93)
TABLE_FACTOR = 2  # slots per entry, at least


@njit(cache=True, nogil=True)
def find_slot(keys: np.ndarray, epochs: np.ndarray, epoch: int, key: np.uint64) -> int:
    """The slot of `key`, or the free one where it belongs; slots of older epochs are free."""
    mask = len(keys) - 1
    slot: Any = np.int64(key) & mask
    while epochs[slot] == epoch and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def add_span(
    sums: np.ndarray, powers: np.ndarray, first: int, last: int, salt: np.uint64, keys: np.ndarray, epochs: np.ndarray,
    epoch: int,
) -> bool:  # fmt: skip
    """Whether the line or paragraph of words first..last-1 has been here before; it has now."""
    key = mix((sums[last] - sums[first] * powers[last - first]) ^ (salt + np.uint64(last - first)))
    slot = find_slot(keys, epochs, epoch, key)
    known = epochs[slot] == epoch
    epochs[slot] = epoch
    keys[slot] = key
    return known


@njit(cache=True, nogil=True)
def repeats(
    sums: np.ndarray,
    chars: np.ndarray,
    num_words: int,
    keys: np.ndarray,
    epochs: np.ndarray,
    epoch: int,
    places: np.ndarray,
    slots: np.ndarray,
    seen: np.ndarray,
    out: np.ndarray,
) -> int:
    """out[n - 2] for n = 2..10: the n-gram metrics, as fractions of chars[num_words]. Returns the last epoch used.

    `sums` are prefix sums of the polynomial over word hashes and `chars` of word lengths.
    """
    out[:] = 0
    num_places = num_words - 1
    for i in range(num_places):
        places[i] = i
    drop = BASE
    for n in range(2, 11):
        drop *= BASE
        epoch += 1
        size = 16
        while size < TABLE_FACTOR * num_places:
            size *= 2
        held = keys[:size]
        dates = epochs[:size]
        covered, dup_chars = 0, 0
        for p in range(num_places):
            i = places[p]
            if i + n > num_words:
                num_places = p
                break
            key = mix(sums[i + n] - sums[i] * drop)
            slot = find_slot(held, dates, epoch, key)
            slots[p] = slot
            if dates[slot] != epoch:
                dates[slot] = epoch
                held[slot] = key
                seen[slot] = 1
            else:
                seen[slot] += 1
                dup_chars += chars[i + n] - chars[max(i, covered)]
                covered = i + n
        kept, top_count, top_chars = 0, 1, 0
        for p in range(num_places):
            count = seen[slots[p]]
            if count > 1:
                i = places[p]
                length = chars[i + n] - chars[i]
                if count > top_count or (count == top_count and length > top_chars):
                    top_count, top_chars = count, length
                places[kept] = i
                kept += 1
        if kept == 0:
            break
        if n < 5:
            out[n - 2] = top_count * top_chars / chars[num_words]
        else:
            out[n - 2] = dup_chars / chars[num_words]
        num_places = kept
    return epoch
