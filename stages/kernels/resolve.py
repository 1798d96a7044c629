"""Who is whose duplicate within one lot, in one pass in row order."""

import numpy as np
from numba import njit

from gristmill.stages.kernels.bandindex import B32, ONE, SCRAMBLE


@njit(cache=True, nogil=True)
def resolve_rows(keys, found, alive, first_owner, slots, rows, answers):  # type: ignore[no-untyped-def]
    """Slots uint64 and rows int32 (bands, 2^m) are scratch tables, rows -1 beforehand."""
    mask = np.uint64(slots.shape[1] - 1)
    for i in range(keys.shape[0]):
        answers[i] = -1
        if not alive[i]:
            continue
        if found[i] >= 0:
            answers[i] = found[i]
            continue
        twin = np.int32(-1)
        for band in range(keys.shape[1]):
            slot = (keys[i, band] * SCRAMBLE) >> B32 & mask
            while rows[band, slot] >= 0 and slots[band, slot] != keys[i, band]:
                slot = (slot + ONE) & mask
            other = rows[band, slot]
            if other >= 0 and (twin < 0 or other < twin):
                twin = other
        if twin >= 0:
            answers[i] = first_owner + twin
            continue
        if found[i] < -1:  # like somebody, who cannot be named
            answers[i] = found[i]
            continue
        for band in range(keys.shape[1]):
            slot = (keys[i, band] * SCRAMBLE) >> B32 & mask
            while rows[band, slot] >= 0:
                slot = (slot + ONE) & mask
            slots[band, slot] = keys[i, band]
            rows[band, slot] = i
