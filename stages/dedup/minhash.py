"""MinHash signatures of texts, bit for bit those of datasketch's `affine32` scheme, about a hundred times as fast.

records/words.py defines a word. In ASCII it is a run of letters and digits in lower case.

A shingle is `ngram` consecutive words, whatever separates them. A shorter text is one shingle of all its words. A text
without words, of symbols alone, is one shingle too, its whole normal form, so it equals only what is equal. An empty
text has no shingle, and the signature of an empty set. The kernel defines the 32-bit hash of a shingle: hash
functions are not part of datasketch's format, so `shingle_hashes` is enough to query these signatures with datasketch.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.records.normal_form import tables
from gristmill.stages.buffers import text_buffers

if TYPE_CHECKING:
    import datasketch

EMPTY = 0xFFFFFFFF  # datasketch's initial hash value of affine32


@lru_cache(maxsize=8)
def permutations(num_perm: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers (odd) and addends of the maps h -> a * h + b mod 2^32: two uint32 (num_perm,).

    They equal those that `datasketch.MinHash._init_permutations` of 2.0.0 draws for affine32 (a test compares).
    """
    draw = np.random.RandomState(seed)
    a = draw.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, draw.randint(0, 1 << 32, num_perm, dtype=np.uint32)


def signatures(texts: Any, num_perm: int = 128, ngram: int = 5, seed: int = 1) -> np.ndarray:
    """MinHash signatures of the word n-grams of `texts`: uint32 (len(texts), num_perm).

    `texts` is a StringArray, LargeStringArray, StringViewArray or a ChunkedArray of these; null counts as empty. The
    result equals `datasketch.MinHash(num_perm, seed, scheme="affine32")` updated with `shingle_hashes` of each text.
    Runs on the calling thread and releases the GIL. Raises TypeError for another type.
    """
    if isinstance(texts, pa.ChunkedArray):
        parts = [signatures(chunk, num_perm, ngram, seed) for chunk in texts.chunks]
        return np.concatenate(parts) if parts else np.empty((0, num_perm), np.uint32)
    rows = np.full((len(texts), num_perm), EMPTY, np.uint32)
    if len(texts):
        _run(texts, ngram, num_perm, seed, rows)
    return rows


def shingle_hashes(text: str, ngram: int = 5) -> np.ndarray:
    """The 32-bit hashes of the word n-grams of a text, in order and with repeats: uint32 (number of shingles,).

    They make datasketch sketches that compare with these: `MinHash(128, hashfunc=int).update_batch(hashes.tolist())`.
    """
    return _run(pa.array([text], pa.large_string()), ngram, 0, 1, np.empty((0, 0), np.uint32)).copy()


def _run(texts: Any, ngram: int, num_perm: int, seed: int, signatures: np.ndarray) -> np.ndarray:
    """Fill `signatures` from a non-empty array of strings; without rows, only return the last text's shingle hashes."""
    from gristmill.stages.kernels import minhash as kernel

    if not (
        pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type) or pa.types.is_string_view(texts.type)
    ):
        raise TypeError(f"texts must be strings, not {texts.type}")
    data, offsets = text_buffers(texts)
    if not data.size:
        data = np.zeros(1, np.uint8)
    a, b = permutations(num_perm, seed)
    shingles: np.ndarray = kernel.shingle_rows(offsets, data, ngram, tables(), a, b, signatures)
    return shingles


def to_datasketch(signature: np.ndarray, seed: int = 1) -> "datasketch.MinHash":
    """A `datasketch.MinHash` that holds `signature`, uint32 (num_perm,), ready for `jaccard` or a `MinHashLSH`.

    Update it only with shingle hashes: its hash function is `int`.
    """
    import datasketch

    return datasketch.MinHash(seed=seed, hashvalues=np.asarray(signature, np.uint32), hashfunc=int, scheme="affine32")


@lru_cache(maxsize=64)
def optimal_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows) with the least sum of both errors for this Jaccard threshold, as datasketch's MinHashLSH has them.

    Rows of similarity s share a band with probability P(s) = 1 - (1 - s^rows)^bands (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, section 3.4.2). The errors are the integral of P below the threshold and that of 1 - P
    above it. P is a polynomial of degree bands * rows <= num_perm, so Gauss-Legendre quadrature is exact. datasketch
    integrates numerically, for which it imports half a second of scipy.

    Raises ValueError if that is a single band (a threshold too near 1 for so few permutations).
    """
    nodes, weights = np.polynomial.legendre.leggauss(num_perm // 2 + 1)  # exact up to degree num_perm + 1
    below, above = threshold * (nodes + 1) / 2, threshold + (1 - threshold) * (nodes + 1) / 2
    best, least = (0, 0), np.inf
    for bands in range(1, num_perm + 1):
        rows = np.arange(1, num_perm // bands + 1)[:, None]
        false_positives = (1 - (1 - below**rows) ** bands) @ weights * threshold / 2
        false_negatives = (1 - above**rows) ** bands @ weights * (1 - threshold) / 2
        errors = false_positives + false_negatives
        if errors.min() < least:
            best, least = (bands, int(errors.argmin()) + 1), float(errors.min())
    if best[0] == 1:
        raise ValueError(f"a threshold of {threshold} leaves one band of {num_perm} permutations")
    return best


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """A 64-bit hash for each band of each signature: uint64 (n, bands).

    Trailing permutations that fill no band are unused.

    Two rows share band k if and only if their keys [k] are equal, but for a chance of 2^-64. The band's number is part
    of the hash, so keys of different bands can share a table.
    """
    from gristmill.stages.kernels import minhash as kernel

    if bands * rows > signatures.shape[1]:
        raise ValueError(f"{bands} bands of {rows} rows need more than {signatures.shape[1]} permutations")
    keys = np.empty((len(signatures), bands), np.uint64)
    kernel.hash_bands(np.ascontiguousarray(signatures, np.uint32), rows, keys)
    return keys
