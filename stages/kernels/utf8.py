"""Code points from UTF-8 and back."""

import numpy as np
from numba import njit

from gristmill.records.normal_form import NUM_CODES

REPLACEMENT = 0xFFFD
MAX_BYTES = 4  # of a character in UTF-8


@njit(cache=True, nogil=True, inline="always")
def character(data, at, stop):  # type: ignore[no-untyped-def]
    """(code point, number of bytes) of the character at data[at], which is not ASCII.

    Broken UTF-8, which can only come from a cast of binary, is read as U+FFFD, a byte at a time.
    """
    byte = np.int64(data[at])
    length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
    if byte < 0xC2 or byte > 0xF4 or at + length > stop:
        return REPLACEMENT, 1
    code = byte & (0x7F >> length)
    for i in range(at + 1, at + length):
        if data[i] & 0xC0 != 0x80:
            return REPLACEMENT, 1
        code = code << 6 | np.int64(data[i] & 0x3F)
    if code >= NUM_CODES:
        return REPLACEMENT, 1
    return code, length


@njit(cache=True, nogil=True)
def encode(code, lower, at):  # type: ignore[no-untyped-def]
    """Write a code point to `lower` as UTF-8; return the number of bytes."""
    if code < 0x80:
        lower[at] = code
        return 1
    if code < 0x800:
        lower[at] = 0xC0 | code >> 6
        lower[at + 1] = 0x80 | code & 0x3F
        return 2
    if code < 0x10000:
        lower[at] = 0xE0 | code >> 12
        lower[at + 1] = 0x80 | code >> 6 & 0x3F
        lower[at + 2] = 0x80 | code & 0x3F
        return 3
    lower[at] = 0xF0 | code >> 18
    lower[at + 1] = 0x80 | code >> 12 & 0x3F
    lower[at + 2] = 0x80 | code >> 6 & 0x3F
    lower[at + 3] = 0x80 | code & 0x3F
    return 4
