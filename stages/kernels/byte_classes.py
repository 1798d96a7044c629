"""What bytes of UTF-8 text are, and the signs that lines, words and sentences begin and end with."""

import numpy as np
from numba import njit

from gristmill.stages.kernels.mixing import mix
from gristmill.stages.kernels.repetition import SEED, WORD

SPACE, ALPHA, LETTER, PUNCT, CLOSE, PHRASE, CONTINUED = 1, 2, 4, 8, 16, 32, 64


def _classes() -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        char = chr(byte)
        if byte in b" \t\n\r\x0b\x0c":
            table[byte] |= SPACE
        if byte >= 128 or char.isalpha():
            table[byte] |= ALPHA  # of an alphabet, so far as bytes tell
        if byte >= 128 or char.isalnum():
            table[byte] |= LETTER
        if byte in b".!?":
            table[byte] |= PUNCT
        if byte in b"\"')]}*_":
            table[byte] |= CLOSE
        if byte < 128 and char.lower() in "ljtpcu":
            table[byte] |= PHRASE  # a phrase may begin here
        if 0x80 <= byte < 0xC0:
            table[byte] |= CONTINUED
    return table


CLASS = _classes()


@njit(cache=True, nogil=True)
def core_hash(data: np.ndarray, start: int, stop: int) -> np.uint64:
    """Hash of a word without the signs around it, in lower case (ASCII): what stop words are compared by."""
    while start < stop and not CLASS[data[start]] & LETTER:
        start += 1
    while stop > start and not CLASS[data[stop - 1]] & LETTER:
        stop -= 1
    h = SEED
    for at in range(start, stop):
        byte = data[at]
        h = (h ^ np.uint64(byte | 32 if 65 <= byte <= 90 else byte)) * WORD
    return mix(h)


@njit(cache=True, nogil=True)
def has(data: np.ndarray, at: int, stop: int, text: np.ndarray) -> bool:
    """Whether `text` stands at data[at:], without regard to (ASCII) case."""
    if at + len(text) > stop:
        return False
    for i in range(len(text)):
        byte = data[at + i]
        if (byte | 32 if 65 <= byte <= 90 else byte) != text[i]:
            return False
    return True


@njit(cache=True, nogil=True)
def ends_sentence(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether a word ends with . ! or ?, closing quotes and brackets aside."""
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
    """Whether a line begins with - or * or one of the signs U+2022, U+2023, U+25CF, U+25E6, U+25AA."""
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
