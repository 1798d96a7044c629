"""Random numbers of a metric: spawned from one seed and the metric's own key, so that no metric disturbs another."""

import zlib

import numpy as np


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])))


def whole_number(seed: int, purpose: str) -> int:
    """A seed below 2^31 for scikit-learn."""
    return int(stream(seed, purpose).integers(2**31))


def some(num_rows: int, most: int, seed: int, purpose: str) -> np.ndarray:
    """At most `most` of the row numbers 0..num_rows-1, drawn without replacement, in order: int64."""
    if num_rows <= most:
        return np.arange(num_rows)
    return np.sort(stream(seed, purpose).choice(num_rows, most, replace=False))
