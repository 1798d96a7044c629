"""Word n-gram hashes of texts, and the search for them in an index of benchmark n-grams.

A word is a run of ASCII letters, ASCII digits and bytes from 0x80 on (so any other script), with ASCII letters
lowered. An n-gram's key is a polynomial over its word hashes modulo 2^64, mixed together with its length. The index
is the sorted array of distinct keys behind a directory of their top bits, with the postings (which units hold a key)
in compressed rows. Before it stands a blocked Bloom filter, three bits in one 64-bit word: a clean text touches one
word of the filter per n-gram, all n-grams of a row are probed in one loop without a branch, so that the cache misses
of one row overlap, and almost none reach the index.
"""

from typing import Any

import numpy as np
from numba import njit

from gristmill.stages.kernels.mixing import mix

SEED = np.uint64(0x9E3779B97F4A7C15)
WORD = np.uint64(0x100000001B3)  # FNV-1a's prime; the finisher below makes up for its weak low bits
BASE = np.uint64(0xD6E8FEB86659FD93)
S6, S8, S32 = (np.uint64(n) for n in (6, 8, 32))
LOW6, ONE, ZERO = np.uint64(63), np.uint64(1), np.uint64(0)


def _letters() -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        if chr(byte).isalnum() and byte < 128:
            table[byte] = ord(chr(byte).lower())
        elif byte >= 128:
            table[byte] = byte
    return table


LETTER = _letters()  # the byte as it is hashed; 0 = not part of a word


@njit(cache=True, nogil=True)
def split_words(
    data: np.ndarray, start: int, stop: int, hashes: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> int:
    """Hashes and byte spans of the words of data[start:stop]; returns how many."""
    count = 0
    at = start
    while at < stop:
        while at < stop and LETTER[data[at]] == 0:
            at += 1
        if at == stop:
            break
        first = at
        h = SEED
        while at < stop:
            letter = LETTER[data[at]]
            if letter == 0:
                break
            h = (h ^ np.uint64(letter)) * WORD
            at += 1
        hashes[count] = mix(h)
        starts[count] = first
        ends[count] = at
        count += 1
    return count


@njit(cache=True, nogil=True)
def ngram_keys(hashes: np.ndarray, count: int, n: int, keys: np.ndarray) -> int:
    """Keys of the word n-grams of hashes[:count]; returns how many (count - n + 1, or 0)."""
    if count < n:
        return 0
    salt = np.uint64(n) * SEED
    drop = ONE
    for _ in range(n):
        drop *= BASE
    h = ZERO
    for i in range(n):
        h = h * BASE + hashes[i]
    keys[0] = mix(h ^ salt)
    for i in range(n, count):
        h = h * BASE + hashes[i] - hashes[i - n] * drop
        keys[i - n + 1] = mix(h ^ salt)
    return count - n + 1


@njit(cache=True, nogil=True)
def index_keys(
    data: np.ndarray,
    offsets: np.ndarray,
    n: int,
    min_words: int,
    keys: np.ndarray,
    units: np.ndarray,
    unit_words: np.ndarray,
) -> tuple[int, int]:
    """Keys of every text of an Arrow string array, with the text's number beside each.

    Texts shorter than `n` words give one key, of all their words; those shorter than `min_words` give none.
    `unit_words` gets the length in words of each text's n-grams. Returns the number of keys and a bit set of the
    lengths met.
    """
    longest = 0
    for u in range(len(offsets) - 1):
        longest = max(longest, offsets[u + 1] - offsets[u])
    room = longest // 2 + 1
    hashes, found = np.empty(room, np.uint64), np.empty(room, np.uint64)
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    total, lengths = 0, 0
    for u in range(len(offsets) - 1):
        count = split_words(data, offsets[u], offsets[u + 1], hashes, starts, ends)
        if count == 0 or count < min_words:
            continue
        length = min(n, count)
        lengths |= 1 << length
        unit_words[u] = length
        num = ngram_keys(hashes, count, length, found)
        for i in range(num):
            keys[total] = found[i]
            units[total] = u
            total += 1
    return total, lengths


@njit(cache=True, nogil=True, inline="always")
def bloom_bits(key: np.uint64) -> np.uint64:
    return (ONE << (key & LOW6)) | (ONE << ((key >> S6) & LOW6)) | (ONE << ((key >> np.uint64(12)) & LOW6))


@njit(cache=True, nogil=True)
def fill_bloom(keys: np.ndarray, bloom: np.ndarray, shift: np.uint64) -> None:
    for key in keys:
        bloom[key >> shift] |= bloom_bits(key)


@njit(cache=True, nogil=True)
def fill_directory(keys: np.ndarray, directory: np.ndarray, shift: np.uint64) -> None:
    """directory[t] = the first place in the sorted `keys` whose top bits are at least t."""
    at = 0
    for top in range(len(directory)):
        while at < len(keys) and np.int64(keys[at] >> shift) < top:
            at += 1
        directory[top] = at


@njit(cache=True, nogil=True, inline="always")
def look_up(key: np.uint64, keys: np.ndarray, directory: np.ndarray, shift: np.uint64) -> int:
    """The place of `key` in the sorted `keys`, or -1."""
    top = np.int64(key >> shift)
    for at in range(directory[top], directory[top + 1]):
        if keys[at] == key:
            return at
    return -1


@njit(cache=True, nogil=True)
def num_chars(data: np.ndarray, start: int, stop: int) -> int:
    """Code points of UTF-8 data[start:stop]."""
    chars = 0
    for at in range(start, stop):
        chars += (data[at] & 0xC0) != 0x80
    return chars


@njit(cache=True, nogil=True)
def scan(
    data: np.ndarray,
    offsets: np.ndarray,
    lengths: np.ndarray,
    bloom: np.ndarray,
    bloom_shift: np.uint64,
    keys: np.ndarray,
    directory: np.ndarray,
    directory_shift: np.uint64,
    posting_starts: np.ndarray,
    postings: np.ndarray,
    unit_keys: np.ndarray,
    unit_words: np.ndarray,
    out_unit: np.ndarray,
    out_share: np.ndarray,
    out_span: np.ndarray,
) -> None:
    """Per row: the unit of which the largest share of distinct n-grams is here (-1 = none), that share, and where.

    `lengths` are the n-gram lengths of the index, `unit_keys` the distinct keys of each unit and `unit_words` their
    length in words. Equal shares go to the longer unit (in n-grams), then to the first. The span, in characters of
    the row's text, is of the longest stretch of words covered by that unit's n-grams, the first of equals.
    """
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    room = longest // 2 + 1
    hashes, found = np.empty(room, np.uint64), np.empty(room, np.uint64)
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    maybe = np.empty(room, np.int64)
    hit_at, hit_key = np.empty(room * len(lengths), np.int64), np.empty(room * len(lengths), np.int64)
    tally = np.zeros(len(unit_keys), np.int32)
    for row in range(len(offsets) - 1):
        out_unit[row] = -1
        base = offsets[row]
        count = split_words(data, base, offsets[row + 1], hashes, starts, ends)
        hits = 0
        for n in lengths:
            num = ngram_keys(hashes, count, n, found)
            some: Any = 0
            for i in range(num):
                key = found[i]
                bits = bloom_bits(key)
                maybe[some] = i
                some += np.int64((bloom[key >> bloom_shift] & bits) == bits)
            for m in range(some):
                place = look_up(found[maybe[m]], keys, directory, directory_shift)
                if place >= 0:
                    hit_at[hits] = maybe[m]
                    hit_key[hits] = place
                    hits += 1
        if hits == 0:
            continue
        distinct = np.unique(hit_key[:hits])
        best, best_share = -1, 0.0
        for place in distinct:
            for p in range(posting_starts[place], posting_starts[place + 1]):
                unit = postings[p]
                tally[unit] += 1
                share = tally[unit] / unit_keys[unit]
                better = share > best_share
                if share == best_share and best >= 0:
                    more, same = unit_keys[unit] > unit_keys[best], unit_keys[unit] == unit_keys[best]
                    better = more or (same and unit < best)
                if better:
                    best, best_share = unit, share
        for place in distinct:
            for p in range(posting_starts[place], posting_starts[place + 1]):
                tally[postings[p]] = 0
        # Hits of one length lie in order of their places, and a unit has n-grams of one length only.
        width = unit_words[best]
        run_start, run_end, top_start, top_end = -1, -1, 0, 0
        for hit in range(hits):
            place = hit_key[hit]
            mine = False
            for p in range(posting_starts[place], posting_starts[place + 1]):
                if postings[p] == best:
                    mine = True
                    break
            if not mine:
                continue
            at = hit_at[hit]
            if run_start < 0 or at > run_end:
                run_start = at
            run_end = at + width
            if run_end - run_start > top_end - top_start:
                top_start, top_end = run_start, run_end
        out_unit[row] = best
        out_share[row] = best_share
        out_span[row, 0] = num_chars(data, base, starts[top_start])
        out_span[row, 1] = out_span[row, 0] + num_chars(data, starts[top_start], ends[top_end - 1])
