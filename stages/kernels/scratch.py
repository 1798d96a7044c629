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
def word_scratch(room: int) -> Any:
    """(edges of words, word hashes) that `minhash.hash_words` fills, for a normal form of at most `room` bytes."""
    return np.empty(room + 2, np.intp), np.empty(room + 1, np.uint64)
