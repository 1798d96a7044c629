"""Repeated word n-grams, lines and paragraphs of a text.

N-grams grow: those of n words are searched only where the preceding n - 1 words occurred twice, so the cost falls with
the repetition. Equal 64-bit hashes count as equal words.
"""

from typing import Any

import numpy as np
from numba import njit

from gristmill.stages.kernels.mixing import POLYNOMIAL, mix

TABLE_FACTOR = 2  # least number of slots per entry
MIN_SLOTS = 16


@njit(cache=True, nogil=True)
def table_size(num_entries: int) -> int:
    """Slots of a table for `num_entries` keys: a power of two."""
    size = MIN_SLOTS
    while size < TABLE_FACTOR * num_entries:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def find_slot(keys: np.ndarray, epochs: np.ndarray, epoch: int, key: np.uint64) -> int:
    """The slot of `key`, or the free slot where it belongs; slots of earlier epochs are free."""
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
    """Record the line or paragraph of words first..last-1; return whether it occurred before."""
    key = mix((sums[last] - sums[first] * powers[last - first]) ^ (salt + np.uint64(last - first)))
    slot = find_slot(keys, epochs, epoch, key)
    is_repeat = epochs[slot] == epoch
    epochs[slot] = epoch
    keys[slot] = key
    return is_repeat


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
    counts: np.ndarray,
    out: np.ndarray,
) -> int:
    """Fill out[n - 2] for n = 2..10 with the n-gram metrics, as fractions of chars[num_words]; return the last epoch.

    `sums` are prefix sums of the polynomial over word hashes, `chars` prefix sums of word lengths.
    """
    out[:] = 0
    num_places = num_words - 1
    for i in range(num_places):
        places[i] = i
    drop = POLYNOMIAL
    for n in range(2, 11):
        drop *= POLYNOMIAL
        epoch += 1
        size = table_size(num_places)
        table_keys, table_epochs = keys[:size], epochs[:size]
        end_of_duplicates, dup_chars = 0, 0
        for p in range(num_places):
            i = places[p]
            if i + n > num_words:
                num_places = p
                break
            key = mix(sums[i + n] - sums[i] * drop)
            slot = find_slot(table_keys, table_epochs, epoch, key)
            slots[p] = slot
            if table_epochs[slot] != epoch:
                table_epochs[slot] = epoch
                table_keys[slot] = key
                counts[slot] = 1
            else:
                counts[slot] += 1
                dup_chars += chars[i + n] - chars[max(i, end_of_duplicates)]
                end_of_duplicates = i + n
        num_repeats, top_count, top_chars = 0, 1, 0
        for p in range(num_places):
            count = counts[slots[p]]
            if count > 1:
                i = places[p]
                length = chars[i + n] - chars[i]
                if count > top_count or (count == top_count and length > top_chars):
                    top_count, top_chars = count, length
                places[num_repeats] = i
                num_repeats += 1
        if num_repeats == 0:
            break
        if n < 5:
            out[n - 2] = top_count * top_chars / chars[num_words]
        else:
            out[n - 2] = dup_chars / chars[num_words]
        num_places = num_repeats
    return epoch
