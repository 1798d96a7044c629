"""Nearest neighbours by brute force in blocks: exact, deterministic, in memory that the block bounds.

A block of squared distances is one single-precision matrix product: with rows (-2a, 1) and (b, |b|^2) it gives
|b|^2 - 2ab, which orders the b of each a. Rounding may swap near-equal neighbours there, so a few more candidates than
asked are kept and measured again by subtraction: a copy is at distance 0 and not at 0.0003.
"""

from collections.abc import Iterator

import numpy as np

ROWS, OTHERS = 512, 4096  # of a block: 8 MiB
SLACK = 3  # candidates beyond those asked for


def nearest(rows: np.ndarray, others: np.ndarray, num: int = 1, is_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Distances, float32 (rows, num), ascending, and row numbers, int64 (rows, num), of the `num` nearest `others`.

    Euclidean, between float32 matrices of the same width. With `is_self` both are the same rows, and none is its own
    neighbour. Raises ValueError when there are fewer than `num` others.
    """
    if len(others) - is_self < num:
        raise ValueError(f"{num} neighbours asked of {len(others)} rows")
    rows, others = _centred(rows, others)
    left, right = _widened(rows, others)
    wanted = min(num + SLACK, len(others) - is_self)
    distances = np.empty((len(rows), num), np.float32)
    places = np.empty((len(rows), num), np.int64)
    buffer = np.empty((ROWS, OTHERS), np.float32)
    for start in range(0, len(rows), ROWS):
        stop = min(start + ROWS, len(rows))
        best = np.full((stop - start, 0), np.inf, np.float32)
        found = np.zeros((stop - start, 0), np.int64)
        for first in range(0, len(others), OTHERS):
            last = min(first + OTHERS, len(others))
            block = buffer.ravel()[: (stop - start) * (last - first)].reshape(stop - start, last - first)
            np.matmul(left[start:stop], right[first:last].T, out=block)
            if is_self:
                own = np.arange(max(start, first), min(stop, last))
                block[own - start, own - first] = np.inf
            values, at = _least(block, min(wanted, last - first))
            best, found = np.hstack([best, values]), np.hstack([found, at + first])
            if best.shape[1] > wanted:
                keep = np.argsort(best, axis=1, kind="stable")[:, :wanted]
                best, found = np.take_along_axis(best, keep, 1), np.take_along_axis(found, keep, 1)
        exact = np.linalg.norm(others[found] - rows[start:stop, None], axis=2)
        if is_self:
            exact[found == np.arange(start, stop)[:, None]] = np.inf
        order = np.lexsort((found, exact), axis=1)[:, :num]
        distances[start:stop] = np.take_along_axis(exact, order, 1)
        places[start:stop] = np.take_along_axis(found, order, 1)
    return distances, places


def blocks(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """All squared distances, float32, some rows at a time: (which rows, (rows of the block, others))."""
    rows, others = _centred(rows, others)
    left, right = _widened(rows, others)
    size = max(1, ROWS * OTHERS // max(len(others), 1))
    for start in range(0, len(rows), size):
        part = slice(start, min(start + size, len(rows)))
        squares = left[part] @ right.T
        squares += np.einsum("ij,ij->i", rows[part], rows[part])[:, None]
        yield part, squares


def rounding(rows: np.ndarray, others: np.ndarray) -> float:
    """How much a squared distance of `blocks` may be off, at most about."""
    rows, others = _centred(rows, others)
    longest = max(float(np.einsum("ij,ij->i", r, r).max()) for r in (rows, others))
    return 16 * float(np.finfo(np.float32).eps) * longest


def _centred(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both moved so that the mean of `others` is 0: short rows lose the least to rounding."""
    middle = others.mean(axis=0, dtype=np.float64).astype(np.float32)
    return rows.astype(np.float32) - middle, others.astype(np.float32) - middle


def _widened(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left = np.hstack([-2 * rows, np.ones((len(rows), 1), np.float32)])
    right = np.hstack([others, np.einsum("ij,ij->i", others, others)[:, None]])
    return np.ascontiguousarray(left, np.float32), np.ascontiguousarray(right, np.float32)


def _least(block: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """The `num` least of each row and where they are; the block is used up. Passes of argmin beat a sort."""
    here = np.arange(len(block))
    values, at = np.empty((len(block), num), np.float32), np.empty((len(block), num), np.int64)
    for place in range(num):
        at[:, place] = block.argmin(axis=1)
        values[:, place] = block[here, at[:, place]]
        block[here, at[:, place]] = np.inf
    return values, at
