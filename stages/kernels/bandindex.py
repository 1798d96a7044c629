"""Open addressing with linear probing: 13 bytes a slot, 8 of key and 5 of owner plus one (0: empty), no tombstones.

A band consists of PARTS tables, so it grows by a small share of itself at a time. The high bits of the scrambled key
(Fibonacci hashing, which spreads keys that are not hashes themselves) select the table. The other bits select the slot:
the high half of bits * length ("fastrange", Lemire 2018, "Fast random integer generation in an interval"). So lengths
need not be powers of two, tables grow by small factors, and a rehash walks both tables in order. A table is passed as
the address of its bytes, because numba has no array of arrays.
"""

import numpy as np
from numba import njit

from gristmill.stages.kernels.memory import high64, load64_at, prefetch_at, store64_at
from gristmill.stages.kernels.mixing import GOLDEN

PART_BITS = np.uint64(6)
PARTS = 1 << int(PART_BITS)
PART_SHIFT = np.uint64(64) - PART_BITS
SLOT_BYTES = np.uint64(13)
ZERO, ONE, FIVE, B24, B32, B40 = (np.uint64(n) for n in (0, 1, 5, 24, 32, 40))
AHEAD = 12  # rows between the prefetch of a slot and its use: about 100 ns of work


@njit(cache=True, nogil=True, inline="always")
def part_of(key):  # type: ignore[no-untyped-def]
    """The number of the table that holds `key`."""
    return (key * GOLDEN) >> PART_SHIFT


@njit(cache=True, nogil=True, inline="always")
def home(key, size):  # type: ignore[no-untyped-def]
    """The slot where the search for `key` begins."""
    return high64((key * GOLDEN) << PART_BITS, size)


@njit(cache=True, nogil=True, inline="always")
def owner_at(place):  # type: ignore[no-untyped-def]
    """Owner + 1 of the slot at an address; 0: the slot is empty."""
    return load64_at(place + FIVE) >> B24


@njit(cache=True, nogil=True, inline="always")
def write(place, key, owner1):  # type: ignore[no-untyped-def]
    """Fill the slot at an address. The two stores overlap in the last three bytes of the key."""
    store64_at(place, key)
    store64_at(place + FIVE, (key >> B40) | (owner1 << B24))


@njit(cache=True, nogil=True)
def find(base, size, key):  # type: ignore[no-untyped-def]
    """(address, owner + 1) of `key`; if it is absent, the address of the empty slot for it, and 0."""
    slot = home(key, size)
    while True:
        place = base + slot * SLOT_BYTES
        owner1 = owner_at(place)
        if owner1 == ZERO or load64_at(place) == key:
            return place, owner1
        slot += ONE
        if slot == size:
            slot = ZERO


@njit(cache=True, nogil=True, inline="always")
def warm(bases, sizes, key):  # type: ignore[no-untyped-def]
    """Prefetch the slot of a key that is looked up soon."""
    part = part_of(key)
    prefetch_at(bases[part] + home(key, sizes[part]) * SLOT_BYTES)


@njit(cache=True, nogil=True)
def query(bases, sizes, keys, owners):  # type: ignore[no-untyped-def]
    """Lower owners[i] (int64, -1: none yet) to the smallest owner of keys[i, band] in any band."""
    num_rows = keys.shape[0]
    for band in range(keys.shape[1]):
        for i in range(num_rows):
            if i + AHEAD < num_rows:
                warm(bases[band], sizes[band], keys[i + AHEAD, band])
            part = part_of(keys[i, band])
            _, owner1 = find(bases[band, part], sizes[band, part], keys[i, band])
            if owner1 != ZERO:
                owner = np.int64(owner1) - 1
                if owners[i] < 0 or owner < owners[i]:
                    owners[i] = owner


@njit(cache=True, nogil=True)
def insert(bases, sizes, counts, rooms, new, owners, band, start):  # type: ignore[no-untyped-def]
    """Insert new[start:, band]; a key that is already there keeps the smaller owner.

    Stops at a row whose table is full.

    Returns the number of that row, or the number of rows.
    """
    num_rows = new.shape[0]
    for i in range(start, num_rows):
        if i + AHEAD < num_rows:
            warm(bases[band], sizes[band], new[i + AHEAD, band])
        part = part_of(new[i, band])
        owner1 = np.uint64(owners[i] + 1)
        place, other1 = find(bases[band, part], sizes[band, part], new[i, band])
        if other1 != ZERO:
            if other1 <= owner1:
                continue
        elif counts[band, part] == rooms[band, part]:
            return i
        else:
            counts[band, part] += 1
        write(place, new[i, band], owner1)
    return num_rows


@njit(cache=True, nogil=True)
def rehash(base, size, new_base, new_size):  # type: ignore[no-untyped-def]
    """Copy every entry into the new, empty table."""
    for slot in range(size):
        place = base + np.uint64(slot) * SLOT_BYTES
        owner1 = owner_at(place)
        if owner1 != ZERO:
            key = load64_at(place)
            to, _ = find(new_base, new_size, key)
            write(to, key, owner1)


@njit(cache=True, nogil=True)
def remove(bases, sizes, counts, keys, owners, band):  # type: ignore[no-untyped-def]
    """Remove the entries of keys[:, band] that belong to `owners`, and close the gaps (Knuth, volume 3, 6.4 R)."""
    for i in range(keys.shape[0]):
        key = keys[i, band]
        part = part_of(key)
        base, size = bases[band, part], sizes[band, part]
        place, owner1 = find(base, size, key)
        if owner1 != np.uint64(owners[i] + 1):
            continue
        counts[band, part] -= 1
        gap = (place - base) // SLOT_BYTES
        slot = gap
        while True:
            slot += ONE
            if slot == size:
                slot = ZERO
            place = base + slot * SLOT_BYTES
            owner1 = owner_at(place)
            if owner1 == ZERO:
                break
            key = load64_at(place)
            # An entry may move into the gap unless its search begins after the gap, with wrap-around.
            from_home = slot - home(key, size) if slot >= home(key, size) else slot + size - home(key, size)
            from_gap = slot - gap if slot >= gap else slot + size - gap
            if from_home >= from_gap:
                write(base + gap * SLOT_BYTES, key, owner1)
                gap = slot
        write(base + gap * SLOT_BYTES, ZERO, ZERO)
