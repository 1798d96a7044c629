"""Which kept rows are near the queried rows, given the inner products of their first numbers, the heads.

By the inequality of Cauchy and Schwarz, the other numbers, the tails, add at most the product of their norms. A pair
whose sum stays below the limit is not near. The products of all other pairs are computed in full, in integers.
"""

import numpy as np
from numba import njit

CHUNK = 128  # pairs that are bounded at once


@njit(cache=True, nogil=True)
def lower_owners(  # type: ignore[no-untyped-def]
    products, is_whole, query_tails, query_norms, query_tail_norms, threshold, slack, margin, most_open,
    heads, tails, norms, tail_norms, owners, best,
):  # fmt: skip
    """Lower best[i] to the smallest owner among the kept rows that are near queried row i.

    A pair is near if its inner product is at least (threshold * norm) * kept norm - slack, in float64.

    products (q, n), int32 or float, are exact inner products of the heads, or of whole rows if `is_whole`. Of the q
    queried rows: query_tails (q, t) int8, query_norms and query_tail_norms (q,) float64. Of the n kept rows: heads
    (n, h) and tails (n, t) int8, norms and tail_norms (n,) float32, and owners (n,) int64. `margin` is a cosine that
    covers the rounding of the float32 bound.

    Returns False, with `best` still to be lowered, as soon as the bound leaves more than `most_open` pairs.
    """
    num_kept, num_open = owners.shape[0], 0
    for i in range(products.shape[0]):
        row, limit = products[i], threshold * query_norms[i]
        low = np.float32((threshold - margin) * query_norms[i])
        reach = np.float32(0.0) if is_whole else np.float32(query_tail_norms[i])
        for first in range(0, num_kept, CHUNK):
            stop = min(first + CHUNK, num_kept)
            if not has_open(row[first:stop], reach, low, tail_norms[first:stop], norms[first:stop]):
                continue
            for j in range(first, stop):
                if np.float32(row[j]) + reach * tail_norms[j] - low * norms[j] < np.float32(0.0):
                    continue
                num_open += 1
                if num_open > most_open:
                    return False
                if owners[j] >= best[i]:
                    continue
                product = np.int64(row[j])
                if not is_whole:
                    product += dot(query_tails[i], tails[j])
                if np.float32(product) < low * norms[j]:
                    continue
                norm = np.sqrt(np.float64(dot(heads[j], heads[j]) + dot(tails[j], tails[j])))
                if np.float64(product) >= limit * norm - slack:
                    best[i] = owners[j]
    return True


@njit(cache=True, nogil=True)
def has_open(products, reach, low, tail_norms, norms):  # type: ignore[no-untyped-def]
    """Whether the bound leaves a pair. Arrays that start at 0 and an int32 counter let the compiler vectorise it."""
    num_open = np.int32(0)
    for j in range(products.shape[0]):
        excess = np.float32(products[j]) + reach * tail_norms[j] - low * norms[j]
        num_open = np.int32(num_open + np.int32(excess >= np.float32(0.0)))
    return num_open > 0


@njit(cache=True, nogil=True)
def dot(a, b):  # type: ignore[no-untyped-def]
    """The inner product, int64, of two int8 (t,); t is at most 131,071, so that partial sums fit int32."""
    total = np.int32(0)
    for k in range(a.shape[0]):
        total = np.int32(total + np.int32(np.int32(a[k]) * np.int32(b[k])))
    return np.int64(total)
