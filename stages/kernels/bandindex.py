"""Open addressing with linear probing: 8 bytes of key and 5 of owner a slot, no pointers, no tombstones.

A table is three arrays of one length: keys uint64, low uint32, high uint8 (owner = high << 32 | low). Its length need
not be a power of two: a slot is the high half of (scrambled key) * length ("fastrange", Lemire 2018, "Fast random
integer generation in an interval"), so tables grow by small factors and a rehash walks both tables in order.
"""

import numpy as np
from numba import njit

from stages.kernels.memory import high64

SCRAMBLE = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: spreads keys that are not hashes themselves
NO_LOW, NO_HIGH = np.uint32(0xFFFFFFFF), np.uint8(0xFF)  # the owner of an empty slot; its key is 0


@njit(cache=True, nogil=True, inline="always")
def is_empty(low, high, slot):  # type: ignore[no-untyped-def]
    """Whether a slot, whose key is known to be 0, is empty."""
    return low[slot] == NO_LOW and high[slot] == NO_HIGH


@njit(cache=True, nogil=True)
def find(keys, low, high, key):  # type: ignore[no-untyped-def]
    """(slot, found): where `key` is, or the empty slot where it would go."""
    slot = np.uint64(high64(key * SCRAMBLE, np.uint64(keys.size)))
    while True:
        there = keys[slot]
        if there == key and (key != 0 or not is_empty(low, high, slot)):
            return slot, True
        if there == 0 and is_empty(low, high, slot):
            return slot, False
        slot += np.uint64(1)
        if slot == np.uint64(keys.size):
            slot = np.uint64(0)


@njit(cache=True, nogil=True)
def query_band(keys, low, high, asked, band, found):  # type: ignore[no-untyped-def]
    """Lower found[i] (int64, -1 = none yet) to the owner of asked[i, band] where there is one."""
    for i in range(asked.shape[0]):
        slot, is_there = find(keys, low, high, asked[i, band])
        if is_there:
            owner = np.int64(high[slot]) << 32 | np.int64(low[slot])
            if found[i] < 0 or owner < found[i]:
                found[i] = owner


@njit(cache=True, nogil=True)
def insert_band(keys, low, high, new, band, owners, start, room):  # type: ignore[no-untyped-def]
    """Insert new[start:, band]; a key that is there keeps the smaller owner. Stops when `room` new keys have come.

    Returns (index of the first row that did not fit, number of new keys).
    """
    count = 0
    for i in range(start, new.shape[0]):
        key = new[i, band]
        slot, is_there = find(keys, low, high, key)
        if is_there:
            if np.int64(high[slot]) << 32 | np.int64(low[slot]) <= owners[i]:
                continue
        elif count == room:
            return i, count
        else:
            keys[slot] = key
            count += 1
        low[slot] = np.uint32(owners[i] & 0xFFFFFFFF)
        high[slot] = np.uint8(owners[i] >> 32)
    return new.shape[0], count


@njit(cache=True, nogil=True)
def rehash(keys, low, high, new_keys, new_low, new_high, stop):  # type: ignore[no-untyped-def]
    """Copy the entries with owners below `stop` into the empty new arrays; returns how many."""
    count = 0
    for slot in range(keys.size):
        if keys[slot] == 0 and is_empty(low, high, slot):
            continue
        if np.int64(high[slot]) << 32 | np.int64(low[slot]) >= stop:
            continue
        to, _ = find(new_keys, new_low, new_high, keys[slot])
        new_keys[to], new_low[to], new_high[to] = keys[slot], low[slot], high[slot]
        count += 1
    return count


@njit(cache=True, nogil=True)
def resolve_rows(keys, found, alive, first_owner, slots, rows, answers):  # type: ignore[no-untyped-def]
    """One pass in row order; slots uint64 and rows int32 (bands, 2^m) are scratch tables, rows -1 beforehand."""
    mask = np.uint64(slots.shape[1] - 1)
    bits = np.uint64(32)
    for i in range(keys.shape[0]):
        answers[i] = -1
        if not alive[i]:
            continue
        if found[i] >= 0:
            answers[i] = found[i]
            continue
        twin = np.int32(-1)
        for band in range(keys.shape[1]):
            slot = (keys[i, band] * SCRAMBLE) >> bits & mask
            while rows[band, slot] >= 0 and slots[band, slot] != keys[i, band]:
                slot = (slot + np.uint64(1)) & mask
            other = rows[band, slot]
            if other >= 0 and (twin < 0 or other < twin):
                twin = other
        if twin >= 0:
            answers[i] = first_owner + twin
            continue
        for band in range(keys.shape[1]):
            slot = (keys[i, band] * SCRAMBLE) >> bits & mask
            while rows[band, slot] >= 0:
                slot = (slot + np.uint64(1)) & mask
            slots[band, slot] = keys[i, band]
            rows[band, slot] = i
