"""Scratch memory of the text kernels, allocated once for the longest text of a batch."""

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def longest_text(offsets: np.ndarray) -> int:
    """Bytes of the longest text between consecutive `offsets`, int64 (rows + 1,)."""
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@njit(cache=True, nogil=True)
def word_scratch(longest: int) -> Any:
    """(lower-case bytes, kinds of bytes, edges of words, word hashes): what `minhash.hash_words` reads and fills."""
    lower, kinds = np.zeros(longest + 32, np.uint8), np.zeros(longest + 2, np.uint8)
    return lower, kinds, np.empty(longest + 2, np.intp), np.empty(longest + 1, np.uint64)
