"""The normal form of UTF-8 text and the roles of its bytes, as records/normal_form.py defines them.

`classify` reads a text byte by byte, which is all that ASCII needs. `fold` rewrites a text with other characters. Both
fill `lower`, the bytes of the normal form, and `kinds`, so that words are runs of one kind other than 0. The kind of
byte i stands at kinds[i + 1].
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gristmill.records.normal_form import (
    DOT_ABOVE,
    EXPANDS,
    FIRST_LEAD,
    FIRST_TAIL,
    FIRST_VOWEL,
    HANGUL,
    IDEOGRAPH,
    KIND_BITS,
    KIND_MASK,
    LENGTH_BITS,
    LENGTH_MASK,
    MARK,
    MAX_EXPANSION,
    MAX_MARKS,
    NUM_TAILS,
    NUM_VOWELS,
    PAGE_BITS,
    REMOVED,
    UNSPACED,
)
from gristmill.stages.kernels.memory import load64, store64
from gristmill.stages.kernels.scratch import longest_text
from gristmill.stages.kernels.utf8 import MAX_BYTES, character, encode

HIGH_BITS = np.uint64(0x8080808080808080)
FIRST_SYLLABLE, NUM_SYLLABLES = HANGUL.start, len(HANGUL)
PAGE_MASK = (1 << PAGE_BITS) - 1
MAX_GROWTH = 11  # of a text in bytes: U+FDFA, which is three words
SMALL_ROOM = 1 << 16  # bytes of a normal form that are reserved without counting
IDEOGRAPHS, UNSPACED_LETTERS = 2, 4  # kinds of bytes; neighbours take 2 and 3, or 4 and 5, in turn


class FoldScratch(NamedTuple):
    """Memory for the normal form of one text."""

    low: np.ndarray  # uint8: the text in ASCII lower case
    ascii_kinds: np.ndarray  # uint8
    lower: np.ndarray  # uint8: the normal form of a text beyond ASCII
    kinds: np.ndarray  # uint8
    form: np.ndarray  # int32 (MAX_EXPANSION,): one character's
    no_origins: np.ndarray  # int64 (0,)


@njit(cache=True, nogil=True)
def classify(data, start, size, low, kinds):  # type: ignore[no-untyped-def]
    """Fill low[:size] with lower-cased bytes and kinds with the kinds of the bytes; return whether all are ASCII.

    `low` is exact for letters and digits only. Bytes beyond ASCII get kind 0.
    """
    text, lower, kind_of = data[start : start + size], low[:size], kinds[1 : size + 1]
    all_bits = np.uint8(0)
    # LLVM turns each of these four loops over slices into 8-bit vectors; it does not vectorise one loop of them all.
    for i in range(text.size):
        all_bits |= text[i]
    for i in range(text.size):
        lower[i] = np.uint8(text[i] | np.uint8(0x20))  # keeps digits
    for i in range(text.size):
        kind_of[i] = np.uint8(np.uint8(lower[i] - np.uint8(97)) < np.uint8(26))
    for i in range(text.size):
        kind_of[i] |= np.uint8(np.uint8(text[i] - np.uint8(48)) < np.uint8(10))
    kinds[0] = 0
    kinds[size + 1] = 0
    return all_bits < 0x80


@njit(cache=True, nogil=True, inline="always")
def entry_of(code, pages, entries):  # type: ignore[no-untyped-def]
    """The entry of a code point; see `gristmill.records.normal_form.Tables`."""
    return np.int64(entries[pages[code >> PAGE_BITS], code & PAGE_MASK])


@njit(cache=True, nogil=True)
def form_of(code, entry, expansions, form):  # type: ignore[no-untyped-def]
    """Fill `form` with the code points of a character's normal form; return their number."""
    kind = entry & KIND_MASK
    if kind == REMOVED:
        return 0
    if kind == EXPANDS:
        value = entry >> KIND_BITS
        start, count = value >> LENGTH_BITS, value & LENGTH_MASK
        for i in range(count):
            form[i] = expansions[start + i]
        return count
    place = code - FIRST_SYLLABLE
    if 0 <= place < NUM_SYLLABLES:
        tail = place % NUM_TAILS
        form[0] = FIRST_LEAD + place // (NUM_VOWELS * NUM_TAILS)
        form[1] = FIRST_VOWEL + place // NUM_TAILS % NUM_VOWELS
        form[2] = FIRST_TAIL + tail
        return 3 if tail else 2
    form[0] = code
    return 1


@njit(cache=True, nogil=True)
def sink(lower, first, at, stop, combining, pages, entries):  # type: ignore[no-untyped-def]
    """Move the mark lower[at:stop] before the marks from `first` on that have a larger combining class."""
    while at > first:
        before = at - 1
        while lower[before] & 0xC0 == 0x80:
            before -= 1
        code, _ = character(lower, before, at)
        if entry_of(code, pages, entries) >> KIND_BITS <= combining:
            return
        for _ in range(stop - at):  # rotate: the last byte becomes the first
            byte = lower[stop - 1]
            for i in range(stop - 1, before, -1):
                lower[i] = lower[i - 1]
            lower[before] = byte
        stop -= at - before
        at = before


@njit(cache=True, nogil=True)
def fold(data, start, size, low, ascii_kinds, tables, form, lower, kinds, origins):  # type: ignore[no-untyped-def]
    """Fill `lower` and `kinds` with the normal form of a text that `classify` has read; return its size in bytes.

    origins[i], unless `origins` is empty, becomes the place in the text of the character that byte i comes from.
    """
    pages, entries, expansions, _ = tables  # arrays, because each look into a tuple counts references
    at, out, turn = 0, 0, 0
    first_mark, num_marks, base = -1, 0, 0  # `base`: the end of the character that the marks belong to
    kinds[0] = 0
    while at < size:
        if data[start + at] < 0x80:
            if at + 8 <= size and load64(data, start + at) & HIGH_BITS == 0:
                store64(lower, out, load64(low, at))
                store64(kinds, out + 1, load64(ascii_kinds, at + 1))
                count = 8
            else:
                lower[out] = low[at]
                kinds[out + 1] = ascii_kinds[at + 1]
                count = 1
            if origins.size:
                for i in range(count):
                    origins[out + i] = at + i
            at += count
            out += count
            first_mark = -1
            continue
        code, length = character(data, start + at, start + size)
        entry = entry_of(code, pages, entries)
        if entry <= UNSPACED and not FIRST_SYLLABLE <= code < FIRST_SYLLABLE + NUM_SYLLABLES:  # most: as it is
            kind = entry
            if kind >= IDEOGRAPH:
                turn ^= 1
                kind = (IDEOGRAPHS if kind == IDEOGRAPH else UNSPACED_LETTERS) + turn
            for i in range(length):
                lower[out + i] = data[start + at + i]
                kinds[out + 1 + i] = kind
            if origins.size:
                for i in range(length):
                    origins[out + i] = at
            at += length
            out += length
            first_mark = -1
            continue
        num_parts = form_of(code, entry, expansions, form)
        for part in range(num_parts):
            if num_parts > 1 or form[0] != code:
                entry = entry_of(np.int64(form[part]), pages, entries)
            kind, end = entry & KIND_MASK, out + encode(np.int64(form[part]), lower, out)
            combining = 0
            if kind == MARK:
                kind = np.int64(kinds[out])
                combining = entry >> KIND_BITS
            elif kind == IDEOGRAPH:
                turn ^= 1
                kind = IDEOGRAPHS + turn
            elif kind == UNSPACED:
                turn ^= 1
                kind = UNSPACED_LETTERS + turn
            if combining == 0:
                first_mark = -1
            elif first_mark < 0 or num_marks == MAX_MARKS:
                base = out if first_mark < 0 else base
                first_mark, num_marks = out, 0
            if combining and form[part] == DOT_ABOVE and base > 0 and lower[base - 1] == 0x69:
                continue
            num_marks += 1
            for i in range(out, end):
                kinds[i + 1] = kind
            if origins.size:
                for i in range(out, end):
                    origins[i] = at
            if combining and first_mark < out:
                sink(lower, first_mark, out, end, combining, pages, entries)
            out = end
        at += length
    kinds[out + 1] = 0
    return out


@njit(cache=True, nogil=True)
def folded_size(data, start, size, tables, form):  # type: ignore[no-untyped-def]
    """An upper bound of the bytes of a normal form, exact but for dots that are dropped."""
    pages, entries, expansions, _ = tables  # arrays, because each look into a tuple counts references
    at, total, scrap = 0, 0, np.empty(MAX_BYTES, np.uint8)
    while at < size:
        if data[start + at] < 0x80:
            at += 1
            total += 1
            continue
        code, length = character(data, start + at, start + size)
        for part in range(form_of(code, entry_of(code, pages, entries), expansions, form)):
            total += encode(np.int64(form[part]), scrap, 0)
        at += length
    return total


@njit(cache=True, nogil=True)
def form_room(data, offsets, tables):  # type: ignore[no-untyped-def]
    """Bytes that hold the normal form of each, and of all, of the texts between consecutive `offsets`."""
    form = np.empty(MAX_EXPANSION, np.int32)
    longest, total = 0, 0
    all_text, any_bits = data[offsets[0] : offsets[-1]], np.uint8(0)
    for i in range(all_text.size):
        any_bits |= all_text[i]
    if any_bits < 0x80:
        return longest_text(offsets), all_text.size
    for row in range(offsets.size - 1):
        start, size = offsets[row], offsets[row + 1] - offsets[row]
        text = data[start : start + size]
        all_bits = np.uint8(0)
        for i in range(size):
            all_bits |= text[i]
        room = size
        if all_bits >= 0x80:
            room = size * MAX_GROWTH
            if room > SMALL_ROOM:
                room = folded_size(data, start, size, tables, form)
        longest = max(longest, room)
        total += room
    return longest, total


@njit(cache=True, nogil=True)
def fold_scratch(longest: int, room: int) -> Any:
    """Memory for texts of at most `longest` bytes and normal forms of at most `room`."""
    return FoldScratch(
        np.zeros(longest + 32, np.uint8), np.zeros(longest + 32, np.uint8), np.zeros(room + 32, np.uint8),
        np.zeros(room + 32, np.uint8), np.empty(MAX_EXPANSION, np.int32), np.empty(0, np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def exact_form(data, start, size, tables, scratch):  # type: ignore[no-untyped-def]
    """(bytes, their number) of the normal form of a text without words, of which `low` would blur the signs."""
    text = data[start : start + size]
    if classify(data, start, size, scratch.low, scratch.ascii_kinds):
        scratch.lower[:size] = text
        return scratch.lower, size
    size = fold(
        data,
        start,
        size,
        text,
        scratch.ascii_kinds,
        tables,
        scratch.form,
        scratch.lower,
        scratch.kinds,
        scratch.no_origins,
    )
    return scratch.lower, size


@njit(cache=True, nogil=True)
def normal_form(data, start, size, tables, scratch):  # type: ignore[no-untyped-def]
    """(bytes of the normal form, kinds of them, their number) of a text; the arrays are parts of `scratch`."""
    if classify(data, start, size, scratch.low, scratch.ascii_kinds):
        return scratch.low, scratch.ascii_kinds, size
    size = fold(
        data, start, size, scratch.low, scratch.ascii_kinds, tables, scratch.form, scratch.lower, scratch.kinds,
        scratch.no_origins,
    )  # fmt: skip
    return scratch.lower, scratch.kinds, size
