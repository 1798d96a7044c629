"""Computes hashed n-gram features from UTF-8 bytes, and the scores of a linear model over them, without Python objects.

The features of a text are the distinct buckets of its word n-grams (1 to `num_words` words; records/words.py
defines a word) and of its byte n-grams (`num_bytes` raw bytes, white space and case included).
"""

import math
from typing import Any

import numpy as np
from numba import njit

from gristmill.stages.kernels.fold import fold_scratch, form_room, normal_form
from gristmill.stages.kernels.memory import load64
from gristmill.stages.kernels.minhash import XX_3, hash_words
from gristmill.stages.kernels.mixing import GOLDEN, POLYNOMIAL, mix
from gristmill.stages.kernels.scratch import longest_text, word_scratch

NUM_SHAPES = 3


@njit(cache=True, nogil=True)
def buckets_of(
    data: np.ndarray, start: int, size: int, tables: Any, bits: int, num_words: int, num_bytes: int,
    stamps: np.ndarray, stamp: int, raw: np.ndarray, scratch: Any, buckets: np.ndarray, shape: np.ndarray,
) -> int:  # fmt: skip
    """Fill `buckets` with the distinct buckets of a text and `shape` with its shape; return the number of buckets.

    shape: log2 of (1 + number of words), over 16; share of distinct words; share of the normal form's bytes in words.
    """
    forms, (edges, words) = scratch
    lower, kinds, length = normal_form(data, start, size, tables, forms)
    count = hash_words(length, lower, kinds, edges, words)
    shift = np.uint64(64 - bits)
    num_buckets, num_single = 0, 0
    for width in range(1, num_words + 1):
        salt = np.uint64(width) * GOLDEN
        for i in range(count - width + 1):
            value = words[i]
            for j in range(i + 1, i + width):
                value = value * POLYNOMIAL + words[j]
            bucket = np.intp(mix(value + salt) >> shift)
            if stamps[bucket] != stamp:
                stamps[bucket] = stamp
                buckets[num_buckets] = bucket
                num_buckets += 1
        if width == 1:
            num_single = num_buckets
    if num_bytes:
        raw[:size] = data[start : start + size]
        mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * num_bytes)
        for i in range(size - num_bytes + 1):
            bucket = np.intp(mix((load64(raw, i) & mask) + XX_3) >> shift)
            if stamps[bucket] != stamp:
                stamps[bucket] = stamp
                buckets[num_buckets] = bucket
                num_buckets += 1
    inside = 0
    for i in range(1, length + 1):
        inside += kinds[i] != 0
    shape[0] = math.log2(1.0 + count) / 16.0
    shape[1] = num_single / count if count else 0.0
    shape[2] = inside / length if length else 0.0
    return num_buckets


@njit(cache=True, nogil=True)
def featurize(
    data: np.ndarray, offsets: np.ndarray, tables: Any, bits: int, num_words: int, num_bytes: int,
    stops: np.ndarray, buckets: np.ndarray, shapes: np.ndarray,
) -> None:  # fmt: skip
    """Fill `buckets` with the buckets of all rows one after another, `stops` with their ends and `shapes` by row."""
    longest = longest_text(offsets)
    room, _ = form_room(data, offsets, tables)
    raw, scratch = np.zeros(longest + 8, np.uint8), (fold_scratch(longest, room), word_scratch(room))
    stamps, at = np.full(1 << bits, -1, np.int32), 0
    for row in range(len(offsets) - 1):
        at += buckets_of(
            data, offsets[row], offsets[row + 1] - offsets[row], tables, bits, num_words, num_bytes, stamps, row, raw,
            scratch, buckets[at:], shapes[row],
        )  # fmt: skip
        stops[row] = at


@njit(cache=True, nogil=True)
def score(
    data: np.ndarray, offsets: np.ndarray, tables: Any, bits: int, num_words: int, num_bytes: int,
    weights: np.ndarray, unit: float, slopes: np.ndarray, bias: float, out: np.ndarray,
) -> None:  # fmt: skip
    """Fill out[row] with the model's probability for each text.

    `weights` are integers in units of `unit`, so their sum is exact, in any order and on any machine.
    """
    longest = longest_text(offsets)
    room, _ = form_room(data, offsets, tables)
    raw, scratch = np.zeros(longest + 8, np.uint8), (fold_scratch(longest, room), word_scratch(room))
    buckets, shape = np.empty(num_words * room + longest + 1, np.int32), np.empty(NUM_SHAPES, np.float64)
    stamps = np.full(1 << bits, -1, np.int32)
    for row in range(len(offsets) - 1):
        count = buckets_of(
            data, offsets[row], offsets[row + 1] - offsets[row], tables, bits, num_words, num_bytes, stamps, row, raw,
            scratch, buckets, shape,
        )  # fmt: skip
        whole = np.int64(0)
        for i in range(count):
            whole += weights[buckets[i]]
        logit = bias + whole * unit / math.sqrt(max(count, 1))
        for i in range(NUM_SHAPES):
            logit += slopes[i] * shape[i]
        out[row] = 1.0 / (1.0 + math.exp(-min(max(logit, -50.0), 50.0)))
