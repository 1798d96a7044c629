"""Finds the duplicates within a lot in one pass, in row order."""

import numpy as np
from numba import njit

from gristmill.stages.kernels.bandindex import B32, ONE
from gristmill.stages.kernels.mixing import GOLDEN


@njit(cache=True, nogil=True)
def resolve_rows(keys, owners, alive, first_owner, slots, rows, answers):  # type: ignore[no-untyped-def]
    """Fill answers[i] with the owner that row i duplicates, or -1; see `gristmill.stages.dedup.bandindex.resolve`.

    `owners` are the answers of the index. `slots` uint64 and `rows` int32 (bands, 2^m) are scratch tables; `rows` must
    be -1.
    """
    mask = np.uint64(slots.shape[1] - 1)
    for i in range(keys.shape[0]):
        answers[i] = -1
        if not alive[i]:
            continue
        if owners[i] >= 0:
            answers[i] = owners[i]
            continue
        twin = np.int32(-1)
        for band in range(keys.shape[1]):
            slot = (keys[i, band] * GOLDEN) >> B32 & mask
            while rows[band, slot] >= 0 and slots[band, slot] != keys[i, band]:
                slot = (slot + ONE) & mask
            other = rows[band, slot]
            if other >= 0 and (twin < 0 or other < twin):
                twin = other
        if twin >= 0:
            answers[i] = first_owner + twin
            continue
        if owners[i] < -1:  # a duplicate of an unknown row
            answers[i] = owners[i]
            continue
        for band in range(keys.shape[1]):
            slot = (keys[i, band] * GOLDEN) >> B32 & mask
            while rows[band, slot] >= 0:
                slot = (slot + ONE) & mask
            slots[band, slot] = keys[i, band]
            rows[band, slot] = i
