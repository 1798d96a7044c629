"""Hashes the word n-grams of texts and looks them up in an index of benchmark n-grams.

records/words.py defines a word. The key of an n-gram is a polynomial over its word hashes modulo 2^64, mixed together
with its length. The index is the sorted array of distinct keys behind a directory of their top bits, with the postings
(the units that hold a key) in compressed rows.

A blocked Bloom filter, three bits in one 64-bit word, stands before the index. A clean text reads one word of the
filter per n-gram. One loop without branches probes all n-grams of a row, so its cache misses overlap. Almost no n-gram
of a clean text reaches the index.
"""

from typing import Any

import numpy as np
from numba import njit

from gristmill.records.normal_form import IDEOGRAPH, LETTER, UNSPACED
from gristmill.records.words import SIXTHS
from gristmill.stages.kernels.fold import (
    IDEOGRAPHS,
    UNSPACED_LETTERS,
    entry_of,
    fold,
    fold_scratch,
    form_of,
    form_room,
)
from gristmill.stages.kernels.fold import normal_form as fold_text
from gristmill.stages.kernels.minhash import hash_words
from gristmill.stages.kernels.mixing import GOLDEN, POLYNOMIAL, mix
from gristmill.stages.kernels.scratch import longest_text, word_scratch
from gristmill.stages.kernels.utf8 import character

S6, S8, S12, S32 = (np.uint64(n) for n in (6, 8, 12, 32))
LOW6, ONE, ZERO = np.uint64(63), np.uint64(1), np.uint64(0)
WORD, OF_IDEOGRAPH, OF_UNSPACED = SIXTHS[LETTER], SIXTHS[IDEOGRAPH], SIXTHS[UNSPACED]


@njit(cache=True, nogil=True)
def kinds_of_words(kinds: np.ndarray, edges: np.ndarray, count: int) -> tuple[int, int, int]:
    """(words of letters, ideographs, letters of scripts without spaces) among the first `count` words."""
    letters, ideographs, unspaced = 0, 0, 0
    k: Any = 0
    while letters + ideographs + unspaced < count:
        kind = kinds[edges[k] + 1]
        letters += kind == 1
        ideographs += IDEOGRAPHS <= kind < UNSPACED_LETTERS
        unspaced += kind >= UNSPACED_LETTERS
        k += 1
    return letters, ideographs, unspaced


@njit(cache=True, nogil=True)
def ngram_length(n: int, letters: int, ideographs: int, unspaced: int) -> int:
    """Words in the n-grams of a text: `n`, or as much text where most words are single characters; a text that is no
    longer is one n-gram."""
    count = letters + ideographs + unspaced
    if WORD * letters + OF_IDEOGRAPH * ideographs + OF_UNSPACED * unspaced <= WORD * n:
        return count
    if letters >= max(ideographs, unspaced):
        return min(n, count)
    each = OF_IDEOGRAPH if ideographs >= unspaced else OF_UNSPACED
    return min((WORD * n + each - 1) // each, count)


@njit(cache=True, nogil=True)
def ngram_keys(hashes: np.ndarray, count: int, n: int, keys: np.ndarray) -> int:
    """Fill `keys` with the keys of the word n-grams of hashes[:count]; return their number, count - n + 1 or 0."""
    if count < n:
        return 0
    salt = np.uint64(n) * GOLDEN
    drop = ONE
    for _ in range(n):
        drop *= POLYNOMIAL
    h = ZERO
    for i in range(n):
        h = h * POLYNOMIAL + hashes[i]
    keys[0] = mix(h ^ salt)
    for i in range(n, count):
        h = h * POLYNOMIAL + hashes[i] - hashes[i - n] * drop
        keys[i - n + 1] = mix(h ^ salt)
    return count - n + 1


@njit(cache=True, nogil=True)
def index_keys(
    data: np.ndarray,
    offsets: np.ndarray,
    tables: Any,
    n: int,
    min_words: int,
    keys: np.ndarray,
    units: np.ndarray,
    unit_words: np.ndarray,
    lengths: np.ndarray,
) -> int:
    """Fill `keys` with the keys of every text of an Arrow string array, and `units` with the text of each key.

    A text no longer than `n` words gives one key, over all its words; a text shorter than `min_words` gives none.
    `unit_words` receives the n-gram length, in words, of each text; the lengths that occur are set in `lengths`, bool.
    Returns the number of keys.
    """
    room, _ = form_room(data, offsets, tables)
    scratch, (edges, hashes) = fold_scratch(longest_text(offsets), room), word_scratch(room)
    text_keys, total = np.empty(room + 1, np.uint64), 0
    for u in range(len(offsets) - 1):
        form, kinds, size = fold_text(data, offsets[u], offsets[u + 1] - offsets[u], tables, scratch)
        count = hash_words(size, form, kinds, edges, hashes)
        if count == 0:
            continue
        letters, ideographs, unspaced = kinds_of_words(kinds, edges, count)
        if WORD * letters + OF_IDEOGRAPH * ideographs + OF_UNSPACED * unspaced < WORD * min_words:
            continue
        length = ngram_length(n, letters, ideographs, unspaced)
        lengths[length] = True
        unit_words[u] = length
        num = ngram_keys(hashes, count, length, text_keys)
        for i in range(num):
            keys[total] = text_keys[i]
            units[total] = u
            total += 1
    return total


@njit(cache=True, nogil=True, inline="always")
def bloom_bits(key: np.uint64) -> np.uint64:
    """The three bits of `key` in its word of the filter."""
    return (ONE << (key & LOW6)) | (ONE << ((key >> S6) & LOW6)) | (ONE << ((key >> S12) & LOW6))


@njit(cache=True, nogil=True)
def fill_bloom(keys: np.ndarray, bloom: np.ndarray, shift: np.uint64) -> None:
    """Set the bits of all `keys`."""
    for key in keys:
        bloom[key >> shift] |= bloom_bits(key)


@njit(cache=True, nogil=True)
def fill_directory(keys: np.ndarray, directory: np.ndarray, shift: np.uint64) -> None:
    """Fill directory[t] with the first place in the sorted `keys` whose top bits are at least t."""
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
    """Number of code points in the UTF-8 bytes data[start:stop]."""
    chars = 0
    for at in range(start, stop):
        chars += (data[at] & 0xC0) != 0x80
    return chars


@njit(cache=True, nogil=True)
def place_of_words(
    data: np.ndarray, start: int, size: int, tables: Any, scratch: Any, edges: np.ndarray, origins: np.ndarray,
    first: int, last: int,
) -> tuple[int, int]:  # fmt: skip
    """(begin, end) in characters of the words `first` to `last` of a text whose words `hash_words` has read."""
    _, kinds, length = fold_text(data, start, size, tables, scratch)
    is_ascii = length == size
    for i in range(size):
        is_ascii &= data[start + i] < 0x80
    if not is_ascii:
        fold(
            data, start, size, scratch.low, scratch.ascii_kinds, tables, scratch.form, scratch.lower, scratch.kinds,
            origins,
        )  # fmt: skip
    word, begin, end = -1, 0, 0
    k: Any = 0
    while word < last:
        if kinds[edges[k] + 1]:
            word += 1
            if word == first:
                begin = edges[k]
            end = edges[k + 1] - 1
        k += 1
    if not is_ascii:
        begin, end = origins[begin], origins[end]
        if data[start + end] >= 0x80:
            end += character(data, start + end, start + size)[1] - 1
        while end + 1 < size and data[start + end + 1] >= 0x80:  # points and hidden signs behind the last letter
            code, length = character(data, start + end + 1, start + size)
            if form_of(code, entry_of(code, tables.pages, tables.entries), tables.expansions, scratch.form):
                break
            end += length
    before = num_chars(data, start, start + begin)
    return before, before + num_chars(data, start + begin, start + end + 1)


@njit(cache=True, nogil=True)
def scan(
    data: np.ndarray,
    offsets: np.ndarray,
    tables: Any,
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
    """Find, for each row, the unit with the largest share of its distinct n-grams in it, that share, and the place.

    `lengths` are the n-gram lengths of the index, `unit_keys` the number of distinct keys of each unit, `unit_words`
    their length in words. Equal shares go to the unit with more n-grams, then to the first. `out_unit` is -1 if there
    is none. `out_span`, in characters of the row's text, is the longest stretch of words that n-grams of the unit
    cover; of equal stretches, the first.
    """
    longest, (room, _) = longest_text(offsets), form_room(data, offsets, tables)
    scratch, (edges, hashes) = fold_scratch(longest, room), word_scratch(room)
    text_keys, candidates, origins = np.empty(room + 1, np.uint64), np.empty(room + 1, np.int64), np.empty(0, np.int64)
    hit_at, hit_key = np.empty(room * len(lengths), np.int64), np.empty(room * len(lengths), np.int64)
    tally = np.zeros(len(unit_keys), np.int32)
    for row in range(len(offsets) - 1):
        out_unit[row] = -1
        start, size = offsets[row], offsets[row + 1] - offsets[row]
        form, kinds, length = fold_text(data, start, size, tables, scratch)
        count = hash_words(length, form, kinds, edges, hashes)
        hits = 0
        for n in lengths:
            num = ngram_keys(hashes, count, n, text_keys)
            num_candidates: Any = 0
            for i in range(num):
                key = text_keys[i]
                bits = bloom_bits(key)
                candidates[num_candidates] = i
                num_candidates += np.int64((bloom[key >> bloom_shift] & bits) == bits)
            for m in range(num_candidates):
                place = look_up(text_keys[candidates[m]], keys, directory, directory_shift)
                if place >= 0:
                    hit_at[hits] = candidates[m]
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
        # Hits of one length are in order of their places, and all n-grams of a unit have the same length.
        width = unit_words[best]
        run_start, run_end, top_start, top_end = -1, -1, 0, 0
        for number in range(hits):
            place = hit_key[number]
            is_match = False
            for p in range(posting_starts[place], posting_starts[place + 1]):
                if postings[p] == best:
                    is_match = True
                    break
            if not is_match:
                continue
            at = hit_at[number]
            if run_start < 0 or at > run_end:
                run_start = at
            run_end = at + width
            if run_end - run_start > top_end - top_start:
                top_start, top_end = run_start, run_end
        out_unit[row] = best
        out_share[row] = best_share
        if not origins.size:
            origins = np.empty(room + 32, np.int64)
        out_span[row, 0], out_span[row, 1] = place_of_words(
            data, start, size, tables, scratch, edges, origins, top_start, top_end - 1
        )
