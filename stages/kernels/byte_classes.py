"""Classes of the bytes of UTF-8 text, and the characters that lines, words and sentences begin and end with.

Bytes of ASCII have classes of their own. A character beyond ASCII has the properties of Unicode in the tables of
records/normal_form.py.
"""

from typing import Any

import numpy as np
from numba import njit

from gristmill.records.normal_form import BULLET, CLOSING, PAGE_BITS, QUOTE, TERMINAL
from gristmill.stages.kernels.fold import PAGE_MASK, normal_form
from gristmill.stages.kernels.mixing import FNV_PRIME, GOLDEN, mix
from gristmill.stages.kernels.utf8 import character

SPACE, ALPHA, IN_WORD, PUNCT, CLOSE, PHRASE, CONTINUATION = 1, 2, 4, 8, 16, 32, 64


def _classes() -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        char = chr(byte)
        if byte in b" \t\n\r\x0b\x0c":
            table[byte] |= SPACE
        if byte < 128 and char.isalpha():
            table[byte] |= ALPHA
        if byte < 128 and char.isalnum():
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


@njit(cache=True, nogil=True, inline="always")
def properties_at(data: np.ndarray, at: int, stop: int, pages: np.ndarray, properties: np.ndarray) -> Any:
    """(properties, code point) of the character beyond ASCII at data[at]."""
    code, _ = character(data, at, stop)
    return np.int64(properties[pages[code >> PAGE_BITS], code & PAGE_MASK]), code


@njit(cache=True, nogil=True)
def last_character(data: np.ndarray, start: int, stop: int) -> int:
    """Where the last character of data[start:stop] begins."""
    at = stop - 1
    while at > start and at > stop - 4 and CLASS[data[at]] & CONTINUATION:
        at -= 1
    return at


@njit(cache=True, nogil=True)
def core_hash(data: np.ndarray, start: int, stop: int) -> np.uint64:
    """Hash of an ASCII word in lower case, without the signs around it; stop words are compared by it."""
    while start < stop and not CLASS[data[start]] & IN_WORD:
        start += 1
    while stop > start and not CLASS[data[stop - 1]] & IN_WORD:
        stop -= 1
    h = GOLDEN
    for at in range(start, stop):
        h = (h ^ np.uint64(LOWER[data[at]])) * FNV_PRIME
    return mix(h)


@njit(cache=True, nogil=True)
def folded_core_hash(data: np.ndarray, start: int, stop: int, tables: Any, scratch: Any) -> np.uint64:
    """The same of any word for which `scratch` has room, by its normal form; equal to `core_hash` for ASCII."""
    lower, kinds, size = normal_form(data, start, stop - start, tables, scratch)
    first = 0
    while first < size and kinds[first + 1] == 0:
        first += 1
    while size > first and kinds[size] == 0:
        size -= 1
    h = GOLDEN
    for at in range(first, size):
        h = (h ^ np.uint64(lower[at])) * FNV_PRIME
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
def ends_sentence(data: np.ndarray, start: int, stop: int, pages: np.ndarray, properties: np.ndarray) -> bool:
    """Whether a word ends with a mark that ends sentences, ignoring closing quotes and brackets after it."""
    while stop > start:
        last = last_character(data, start, stop)
        byte = data[last]
        if byte < 0x80:
            if not CLASS[byte] & CLOSE:
                return (CLASS[byte] & PUNCT) != 0
        else:
            bits, _ = properties_at(data, last, stop, pages, properties)
            if not bits & CLOSING:
                return (bits & TERMINAL) != 0
        stop = last
    return False


@njit(cache=True, nogil=True)
def is_bullet(data: np.ndarray, start: int, stop: int, pages: np.ndarray, properties: np.ndarray) -> bool:
    """Whether a line begins with - or * or with a bullet, such as those of word processors."""
    if data[start] < 0x80:
        return data[start] == 0x2D or data[start] == 0x2A
    return (properties_at(data, start, stop, pages, properties)[0] & BULLET) != 0


@njit(cache=True, nogil=True)
def is_ellipsis(data: np.ndarray, start: int, stop: int) -> bool:
    """Whether data[start:stop] ends with three dots or U+2026."""
    if stop - start < 3:
        return False
    dots = data[stop - 3] == 0x2E and data[stop - 2] == 0x2E and data[stop - 1] == 0x2E
    return dots or (data[stop - 3] == 0xE2 and data[stop - 2] == 0x80 and data[stop - 1] == 0xA6)


@njit(cache=True, nogil=True)
def is_punctuated(data: np.ndarray, start: int, stop: int, pages: np.ndarray, properties: np.ndarray) -> bool:
    """Whether a line ends with a mark that ends sentences in any script, or with a quotation mark."""
    last = last_character(data, start, stop)
    if data[last] < 0x80:
        return (CLASS[data[last]] & PUNCT) != 0 or data[last] == 0x22 or data[last] == 0x27
    return (properties_at(data, last, stop, pages, properties)[0] & (TERMINAL | QUOTE)) != 0
