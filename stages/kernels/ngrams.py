"""From UTF-8 bytes to hashed n-gram features, and from those to the scores of a linear model, without Python objects.

A text's features are the distinct buckets of its word n-grams (of 1 to `num_words` words, as stages/dedup/minhash.py
says
what a word is) and of its byte n-grams (of `num_bytes` bytes, as they stand, white space and case included).
"""

import math

import numpy as np
from numba import njit

from gristmill.stages.kernels.memory import load64
from gristmill.stages.kernels.minhash import BASE, P0, P2, classify, hash_words
from gristmill.stages.kernels.mixing import mix

NUM_SHAPES = 3


@njit(cache=True, nogil=True)
def buckets_of(
    data: np.ndarray, start: int, size: int, table: np.ndarray, bits: int, num_words: int, num_bytes: int,
    seen: np.ndarray, stamp: int, raw: np.ndarray, lower: np.ndarray, kinds: np.ndarray, edges: np.ndarray,
    words: np.ndarray, found: np.ndarray, shape: np.ndarray,
) -> int:  # fmt: skip
    """Fill `found` with the distinct buckets of a text and `shape` with what it looks like; return how many they are.

    shape: log2 of one more than the number of words, over 16; share of distinct words; share of bytes inside words.
    """
    classify(data, start, size, table, lower, kinds)
    count = hash_words(size, lower, kinds, edges, words)
    shift = np.uint64(64 - bits)
    num_found, num_single = 0, 0
    for width in range(1, num_words + 1):
        salt = np.uint64(width) * P0
        for i in range(count - width + 1):
            value = words[i]
            for j in range(i + 1, i + width):
                value = value * BASE + words[j]
            bucket = np.intp(mix(value + salt) >> shift)
            if seen[bucket] != stamp:
                seen[bucket] = stamp
                found[num_found] = bucket
                num_found += 1
        if width == 1:
            num_single = num_found
    if num_bytes:
        raw[:size] = data[start : start + size]
        mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * num_bytes)
        for i in range(size - num_bytes + 1):
            bucket = np.intp(mix((load64(raw, i) & mask) + P2) >> shift)
            if seen[bucket] != stamp:
                seen[bucket] = stamp
                found[num_found] = bucket
                num_found += 1
    inside = 0
    for i in range(1, size + 1):
        inside += kinds[i] != 0
    shape[0] = math.log2(1.0 + count) / 16.0
    shape[1] = num_single / count if count else 0.0
    shape[2] = inside / size if size else 0.0
    return num_found


@njit(cache=True, nogil=True)
def featurize(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray, bits: int, num_words: int, num_bytes: int,
    stops: np.ndarray, found: np.ndarray, shapes: np.ndarray,
) -> None:  # fmt: skip
    """Fill `found` with each row's buckets one after another, `stops` with where each row's end, `shapes` by row."""
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    raw, lower, kinds = (
        np.zeros(longest + 8, np.uint8),
        np.zeros(longest + 32, np.uint8),
        np.zeros(longest + 2, np.uint8),
    )
    edges, words = np.empty(longest + 2, np.intp), np.empty(longest + 1, np.uint64)
    seen, at = np.full(1 << bits, -1, np.int32), 0
    for row in range(len(offsets) - 1):
        at += buckets_of(
            data, offsets[row], offsets[row + 1] - offsets[row], table, bits, num_words, num_bytes, seen, row, raw,
            lower, kinds, edges, words, found[at:], shapes[row],
        )  # fmt: skip
        stops[row] = at


@njit(cache=True, nogil=True)
def score(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray, bits: int, num_words: int, num_bytes: int,
    weights: np.ndarray, unit: float, slopes: np.ndarray, bias: float, out: np.ndarray,
) -> None:  # fmt: skip
    """out[row] = the model's probability for each text. `weights` are whole numbers of `unit`: their sum is exact, so
    that it is the same in any order and on any machine."""
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    raw, lower, kinds = (
        np.zeros(longest + 8, np.uint8),
        np.zeros(longest + 32, np.uint8),
        np.zeros(longest + 2, np.uint8),
    )
    edges, words = np.empty(longest + 2, np.intp), np.empty(longest + 1, np.uint64)
    found, shape = np.empty((num_words + 1) * longest + 1, np.int32), np.empty(NUM_SHAPES, np.float64)
    seen = np.full(1 << bits, -1, np.int32)
    for row in range(len(offsets) - 1):
        count = buckets_of(
            data, offsets[row], offsets[row + 1] - offsets[row], table, bits, num_words, num_bytes, seen, row, raw,
            lower, kinds, edges, words, found, shape,
        )  # fmt: skip
        whole = np.int64(0)
        for i in range(count):
            whole += weights[found[i]]
        logit = bias + whole * unit / math.sqrt(max(count, 1))
        for i in range(NUM_SHAPES):
            logit += slopes[i] * shape[i]
        out[row] = 1.0 / (1.0 + math.exp(-min(max(logit, -50.0), 50.0)))
