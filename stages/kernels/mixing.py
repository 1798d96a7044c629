"""The bit mixer and the constants that the hash functions of all kernels share.

They are fixed: stored keys use them.
"""

import numpy as np
from numba import njit

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: seeds, salts and Fibonacci hashing
FNV_PRIME = np.uint64(0x100000001B3)  # of FNV-1a over the bytes of a word; `mix` repairs its weak low bits
POLYNOMIAL = np.uint64(0xD6E8FEB86659FD93)  # base of the polynomials over the words of an n-gram, modulo 2^64
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31 = np.uint64(27), np.uint64(30), np.uint64(31)


@njit(cache=True, nogil=True, inline="always")
def mix(x: np.uint64) -> np.uint64:
    """Mix the bits of `x`: the finalizer of splitmix64, a bijection on 64 bits.

    `mix.py_func` takes numpy arrays of uint64 as well.
    """
    x = (x ^ (x >> S30)) * MIX_1
    x = (x ^ (x >> S27)) * MIX_2
    return x ^ (x >> S31)
