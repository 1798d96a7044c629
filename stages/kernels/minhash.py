"""Computes MinHash signatures from UTF-8 bytes in one pass, without Python objects.

The steps: normal form (see fold.py; ASCII is vectorised), find the edges of words (without branches), hash words 16
bytes at a time, combine word hashes into n-grams, permute and take minima (vectorised over permutations, eight shingles
at a time).
"""

import numpy as np
from numba import njit

from gristmill.stages.kernels.fold import classify, exact_form, fold_scratch, form_room, normal_form
from gristmill.stages.kernels.memory import load64
from gristmill.stages.kernels.mixing import FNV_PRIME, GOLDEN, MIX_1, MIX_2, POLYNOMIAL, mix
from gristmill.stages.kernels.scratch import longest_text, word_scratch

XX_2, XX_3 = np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)  # multipliers of xxHash64
S29, S32 = np.uint64(29), np.uint64(32)

# Which bytes of a word's first and second eight belong to it, by word length 0..16.
FIRST = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(17)], np.uint64)
SECOND = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(17)], np.uint64)


@njit(cache=True, nogil=True)
def hash_words(size, lower, kinds, edges, words):  # type: ignore[no-untyped-def]
    """Fill `words` with the 64-bit hashes of the words in order; return their number."""
    # Unsigned counters avoid the check for negative indices.
    one, num_edges, num_words = np.uint64(1), np.uint64(0), np.uint64(0)
    for i in range(np.uint64(size + 1)):
        edges[num_edges] = i
        num_edges += np.uint64(kinds[i] != kinds[i + one])
    if num_edges == 0:
        return 0
    for k in range(num_edges - one):
        begin = edges[k]
        if kinds[begin + 1] == 0:
            continue
        length = edges[k + one] - begin
        short = np.uint64(min(length, 16))
        value = (load64(lower, begin) & FIRST[short]) * GOLDEN + (load64(lower, begin + 8) & SECOND[short]) * XX_2
        while length > 16:
            begin += 16
            length -= 16
            short = np.uint64(min(length, 16))
            value = (value ^ (value >> S29)) * XX_3
            value += (load64(lower, begin) & FIRST[short]) * GOLDEN + (load64(lower, begin + 8) & SECOND[short]) * XX_2
        value = (value ^ (value >> S32)) * MIX_1
        words[num_words] = value ^ (value >> S29)
        num_words += one
    return np.intp(num_words)


@njit(cache=True, nogil=True)
def hash_shingles(words, num_words, ngram, shingles):  # type: ignore[no-untyped-def]
    """Fill `shingles` with the 32-bit hashes of the word n-grams in order; return their number."""
    if num_words == 0:
        return 0
    width = min(ngram, num_words)
    value = np.uint64(0)
    leave = np.uint64(1)
    for i in range(width):
        value = value * POLYNOMIAL + words[i]
        leave *= POLYNOMIAL
    count = num_words - width + 1
    for i in range(count):
        mixed = (value ^ (value >> S32)) * MIX_2
        shingles[i] = np.uint32(mixed >> S32)
        if i + 1 < count:
            value = value * POLYNOMIAL + (words[i + width] - words[i] * leave)
    return count


@njit(cache=True, nogil=True)
def premix(shingles, count):  # type: ignore[no-untyped-def]
    """Apply the 32-bit finalizer of MurmurHash3 in place, as datasketch does before its affine permutations."""
    for i in range(count):
        h = shingles[i]
        h = np.uint32(h ^ (h >> np.uint32(16)))
        h = np.uint32(h * np.uint32(0x85EBCA6B))
        h = np.uint32(h ^ (h >> np.uint32(13)))
        h = np.uint32(h * np.uint32(0xC2B2AE35))
        shingles[i] = np.uint32(h ^ (h >> np.uint32(16)))


@njit(cache=True, nogil=True)
def permute(shingles, count, a, b, signature):  # type: ignore[no-untyped-def]
    """signature[j] = min over shingles h of (a[j] * h + b[j]) mod 2^32."""
    if count == 0:
        return
    # Eight at a time: one load and store of the signature for eight minima. Padding repeats the last, which changes
    # no minimum.
    for i in range(count, (count + 7) // 8 * 8):
        shingles[i] = shingles[count - 1]
    for i in range(0, count, 8):
        h0, h1, h2, h3 = shingles[i], shingles[i + 1], shingles[i + 2], shingles[i + 3]
        h4, h5, h6, h7 = shingles[i + 4], shingles[i + 5], shingles[i + 6], shingles[i + 7]
        for j in range(signature.size):
            x, y = a[j], b[j]
            m0 = min(np.uint32(x * h0 + y), np.uint32(x * h1 + y))
            m1 = min(np.uint32(x * h2 + y), np.uint32(x * h3 + y))
            m2 = min(np.uint32(x * h4 + y), np.uint32(x * h5 + y))
            m3 = min(np.uint32(x * h6 + y), np.uint32(x * h7 + y))
            signature[j] = min(signature[j], min(min(m0, m1), min(m2, m3)))


@njit(cache=True, nogil=True)
def hash_exactly(form, size):  # type: ignore[no-untyped-def]
    """(hash of a whole normal form with one blank for each run of white space, whether it holds anything else)."""
    value, holds_any, is_after_space = GOLDEN, False, False
    for i in range(size):
        byte = form[i]
        if byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31:
            is_after_space = True
            continue
        if is_after_space and holds_any:
            value = (value ^ np.uint64(32)) * FNV_PRIME
        value = (value ^ np.uint64(byte)) * FNV_PRIME
        holds_any, is_after_space = True, False
    return mix(value), holds_any


@njit(cache=True, nogil=True)
def shingle_rows(offsets, data, ngram, tables, a, b, signatures):  # type: ignore[no-untyped-def]
    """Fill `signatures` (n, num_perm), all ones before; without rows there, only find the shingles of the last row.

    A text without words has one shingle, its whole normal form, and none if that is empty. Returns the shingles of the
    last row.
    """
    longest = room = longest_text(offsets)
    scratch, (edges, words), shingles = fold_scratch(longest, room), word_scratch(room), np.empty(room + 16, np.uint32)
    count, is_large = 0, False
    for row in range(offsets.size - 1):
        start, size = offsets[row], offsets[row + 1] - offsets[row]
        if classify(data, start, size, scratch.low, scratch.ascii_kinds):
            num_words = hash_words(size, scratch.low, scratch.ascii_kinds, edges, words)
        else:
            if not is_large:
                room, _ = form_room(data, offsets, tables)
                scratch, (edges, words) = fold_scratch(longest, room), word_scratch(room)
                shingles, is_large = np.empty(room + 16, np.uint32), True
            lower, kinds, length = normal_form(data, start, size, tables, scratch)
            num_words = hash_words(length, lower, kinds, edges, words)
        count = hash_shingles(words, num_words, ngram, shingles)
        if count == 0 and size:
            form, length = exact_form(data, start, size, tables, scratch)
            value, holds_any = hash_exactly(form, length)
            if holds_any:
                shingles[0] = np.uint32(value >> S32)
                count = 1
        if signatures.shape[0]:
            premix(shingles, count)
            permute(shingles, count, a, b, signatures[row])
    return shingles[:count]


@njit(cache=True, nogil=True)
def hash_bands(signatures, rows, keys):  # type: ignore[no-untyped-def]
    """keys[i, k] = 64-bit hash of (k, signatures[i, k * rows : (k + 1) * rows])."""
    for i in range(keys.shape[0]):
        for k in range(keys.shape[1]):
            value = np.uint64(k + 1) * GOLDEN
            for j in range(k * rows, k * rows + rows):
                value = (value ^ np.uint64(signatures[i, j])) * MIX_1
                value ^= value >> S32
            value *= MIX_2
            keys[i, k] = value ^ (value >> S29)
