"""Computes MinHash signatures from UTF-8 bytes in one pass, without Python objects.

The steps: classify bytes (vectorised), find the edges of words (without branches), hash words 16 bytes at a time,
combine word hashes into n-grams, permute and take minima (vectorised over permutations, eight shingles at a time).
"""

import numpy as np
from numba import njit

from gristmill.stages.kernels.memory import load64
from gristmill.stages.kernels.mixing import GOLDEN, MIX_1, MIX_2, POLYNOMIAL
from gristmill.stages.kernels.scratch import longest_text, word_scratch

XX_2, XX_3 = np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)  # multipliers of xxHash64
S29, S32 = np.uint64(29), np.uint64(32)
HIGH_BITS = np.uint64(0x8080808080808080)

# Which bytes of a word's first and second eight belong to it, by word length 0..16.
FIRST = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(17)], np.uint64)
SECOND = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(17)], np.uint64)

SEPARATOR, LETTER, SINGLE_LETTER = 0, 1, 2


@njit(cache=True, nogil=True)
def classify(data, start, size, table, lower, kinds):  # type: ignore[no-untyped-def]
    """Fill lower[:size] with lower-cased bytes and kinds[1 : size + 1] so that words are runs of one non-zero kind."""
    text, low, kind_of = data[start : start + size], lower[:size], kinds[1 : size + 1]
    all_bits = np.uint8(0)
    # LLVM turns each of these four loops over slices into 8-bit vectors; it does not vectorise one loop of them all.
    for i in range(text.size):
        all_bits |= text[i]
    for i in range(text.size):
        low[i] = np.uint8(text[i] | np.uint8(0x20))  # keeps digits
    for i in range(text.size):
        kind_of[i] = np.uint8(np.uint8(low[i] - np.uint8(97)) < np.uint8(26))
    for i in range(text.size):
        kind_of[i] |= np.uint8(np.uint8(text[i] - np.uint8(48)) < np.uint8(10))
    kinds[0] = 0
    kinds[size + 1] = 0
    if all_bits < 0x80:
        return
    i = 0
    turn = np.uint8(2)
    while i < size:
        if i + 8 <= size and load64(data, start + i) & HIGH_BITS == 0:
            i += 8
            continue
        byte = data[start + i]
        if byte < 0x80:
            i += 1
            continue
        # Broken UTF-8 can only come from a cast of binary: it is cut at the end and treated as letters.
        length = min(2 if byte < 0xE0 else 3 if byte < 0xF0 else 4, size - i)
        kind = np.uint8(LETTER)
        if byte >= 0xF0:
            kind = np.uint8(SINGLE_LETTER)
        elif length == 3:
            code = (byte & 15) << 12 | (data[start + i + 1] & 63) << 6 | (data[start + i + 2] & 63)
            kind = table[code]
        elif length == 2:
            kind = table[(byte & 31) << 6 | (data[start + i + 1] & 63)]
        if kind == SINGLE_LETTER:
            turn ^= np.uint8(1)  # neighbours differ in kind (2, 3, 2, ...), so each is a separate run
            kind = turn
        for j in range(i, i + length):
            lower[j] = data[start + j]
            kinds[j + 1] = kind
        i += length


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
def shingle_rows(offsets, data, ngram, table, a, b, signatures, shingles):  # type: ignore[no-untyped-def]
    """Fill `signatures` (n, num_perm), all ones before; without rows there, only fill `shingles` of the last row.

    Returns the number of shingles of the last row. `shingles` is scratch for the longest row, plus 8.
    """
    lower, kinds, edges, words = word_scratch(longest_text(offsets))
    count = 0
    for row in range(offsets.size - 1):
        size = offsets[row + 1] - offsets[row]
        classify(data, offsets[row], size, table, lower, kinds)
        count = hash_shingles(words, hash_words(size, lower, kinds, edges, words), ngram, shingles)
        if signatures.shape[0]:
            premix(shingles, count)
            permute(shingles, count, a, b, signatures[row])
    return count


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
