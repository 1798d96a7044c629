"""Random numbers of metrics, spawned from one seed and the purpose, so that metrics do not affect each other."""

import zlib

import numpy as np


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])))


def whole_number(seed: int, purpose: str) -> int:
    """A seed below 2^31 for scikit-learn."""
    return int(stream(seed, purpose).integers(2**31))


def some(num_rows: int, most: int, seed: int, purpose: str) -> np.ndarray:
    """At most `most` random row numbers below `num_rows`, without replacement, ascending: int64."""
    if num_rows <= most:
        return np.arange(num_rows)
    return np.sort(stream(seed, purpose).choice(num_rows, most, replace=False))
