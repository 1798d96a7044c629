"""Classes of the bytes of UTF-8 text, and the characters that lines, words and sentences begin and end with.

A byte belongs to a word if it is an ASCII letter, an ASCII digit or 0x80 and above, so any other script counts.
"""

import numpy as np
from numba import njit

from gristmill.stages.kernels.mixing import FNV_PRIME, GOLDEN, mix

SPACE, ALPHA, IN_WORD, PUNCT, CLOSE, PHRASE, CONTINUATION = 1, 2, 4, 8, 16, 32, 64


def _classes() -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        char = chr(byte)
        if byte in b" \t\n\r\x0b\x0c":
            table[byte] |= SPACE
        if byte >= 128 or char.isalpha():
            table[byte] |= ALPHA  # in an alphabet, as far as single bytes show
        if byte >= 128 or char.isalnum():
            table[byte] |= IN_WORD
        if byte in b".!?":
            table[byte] |= PUNCT
        if byte in b"\"')]}*_":
            table[byte] |= CLOSE
        if byte < 128 and char.lower() in "ljtpcu":
            table[byte] |= PHRASE  # one of PHRASES in rules.py may begin here
        if 0x80 <= byte < 0xC0:
            table[byte] |= CONTINUATION
    return table


CLASS = _classes()
LOWER = np.array([byte | 32 if 65 <= byte <= 90 else byte for byte in range(256)], np.uint8)  # ASCII only
WORD_BYTE = np.where(CLASS & IN_WORD, LOWER, np.uint8(0))  # the byte as it is hashed; 0: not part of a word


@njit(cache=True, nogil=True)
def core_hash(data: np.ndarray, start: int, stop: int) -> np.uint64:
    """Hash of a word in ASCII lower case, without the punctuation around it; stop words are compared by it."""
    while start < stop and not CLASS[data[start]] & IN_WORD:
        start += 1
    while stop > start and not CLASS[data[stop - 1]] & IN_WORD:
        stop -= 1
    h = GOLDEN
    for at in range(start, stop):
        h = (h ^ np.uint64(LOWER[data[at]])) * FNV_PRIME
    return mix(h)


@njit(cache=True, nogil=True)
def has(data: np.ndarray, at: int, stop: int, text: np.ndarray) -> bool:
    """Whether data[at:stop] starts with `text`, which is in lower case, ignoring ASCII case."""
    if at + len(text) > stop:
        return False
    for i in range(len(text)):
        byte = LOWER[data[at + i]]
        if byte != text[i]:
            return False
    return True


@njit(cache=True, nogil=True)
def ends_sentence(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether a word ends with . ! or ?, ignoring closing quotes and brackets after it."""
    while stop > start:
        if CLASS[data[stop - 1]] & CLOSE:
            stop -= 1
        elif stop - start > 2 and data[stop - 3] == 0xE2 and data[stop - 2] == 0x80 and data[stop - 1] in (0x99, 0x9D):
            stop -= 3
        else:
            break
    return stop > start and (CLASS[data[stop - 1]] & PUNCT) != 0


@njit(cache=True, nogil=True)
def is_bullet(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether a line begins with - or * or with U+2022, U+2023, U+25CF, U+25E6 or U+25AA."""
    if data[start] == 0x2D or data[start] == 0x2A:
        return True
    if stop - start < 3 or data[start] != 0xE2:
        return False
    pair = (np.int64(data[start + 1]) << 8) | data[start + 2]
    return pair in (0x80A2, 0x80A3, 0x978F, 0x97A6, 0x96AA)


@njit(cache=True, nogil=True)
def is_ellipsis(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether data[start:stop] ends with three dots or U+2026."""
    if stop - start < 3:
        return False
    dots = data[stop - 3] == 0x2E and data[stop - 2] == 0x2E and data[stop - 1] == 0x2E
    return dots or (data[stop - 3] == 0xE2 and data[stop - 2] == 0x80 and data[stop - 1] == 0xA6)


@njit(cache=True, nogil=True)
def is_punctuated(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether a line ends with . ! ? or a quotation mark, or with U+2026, U+201D, U+2019, U+3002, U+FF01, U+FF1F."""
    last = data[stop - 1]
    if CLASS[last] & PUNCT or last == 0x22 or last == 0x27:
        return True
    if stop - start < 3:
        return False
    sign = (np.int64(data[stop - 3]) << 16) | (np.int64(data[stop - 2]) << 8) | last
    return sign in (0xE280A6, 0xE2809D, 0xE28099, 0xE38082, 0xEFBC81, 0xEFBC9F)
