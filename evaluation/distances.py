"""Nearest neighbours by brute force in blocks: exact, deterministic and in bounded memory.

A block of squared distances is one single-precision matrix product: rows (-2a, 1) times (b, |b|^2) give |b|^2 - 2ab,
which orders the rows b for each a. Rounding may swap near-equal neighbours. So a few more candidates than requested are
kept and measured again by subtraction: a copy is at distance 0 and not at 0.0003.
"""

from collections.abc import Iterator

import numpy as np

ROWS, OTHERS = 512, 4096  # size of a block: 8 MiB
SLACK = 3  # additional candidates


def nearest(rows: np.ndarray, others: np.ndarray, num: int = 1, is_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Distances, float32 (rows, num), ascending, and row numbers, int64 (rows, num), of the `num` nearest `others`.

    Euclidean, between float32 matrices of the same width. With `is_self` both are the same rows, and no row is its own
    neighbour. Raises ValueError for fewer than `num` others.
    """
    if len(others) - is_self < num:
        raise ValueError(f"{num} neighbours requested of {len(others)} rows")
    rows, others = _centre(rows, others)
    left, right = _widen(rows, others)
    num_candidates = min(num + SLACK, len(others) - is_self)
    distances = np.empty((len(rows), num), np.float32)
    places = np.empty((len(rows), num), np.int64)
    buffer = np.empty((ROWS, OTHERS), np.float32)
    for start in range(0, len(rows), ROWS):
        stop = min(start + ROWS, len(rows))
        best = np.full((stop - start, 0), np.inf, np.float32)
        candidates = np.zeros((stop - start, 0), np.int64)
        for first in range(0, len(others), OTHERS):
            last = min(first + OTHERS, len(others))
            block = buffer.ravel()[: (stop - start) * (last - first)].reshape(stop - start, last - first)
            np.matmul(left[start:stop], right[first:last].T, out=block)
            if is_self:
                diagonal = np.arange(max(start, first), min(stop, last))
                block[diagonal - start, diagonal - first] = np.inf
            values, at = _least(block, min(num_candidates, last - first))
            best, candidates = np.hstack([best, values]), np.hstack([candidates, at + first])
            if best.shape[1] > num_candidates:
                keep = np.argsort(best, axis=1, kind="stable")[:, :num_candidates]
                best, candidates = np.take_along_axis(best, keep, 1), np.take_along_axis(candidates, keep, 1)
        exact = np.linalg.norm(others[candidates] - rows[start:stop, None], axis=2)
        if is_self:
            exact[candidates == np.arange(start, stop)[:, None]] = np.inf
        order = np.lexsort((candidates, exact), axis=1)[:, :num]
        distances[start:stop] = np.take_along_axis(exact, order, 1)
        places[start:stop] = np.take_along_axis(candidates, order, 1)
    return distances, places


def blocks(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """All squared distances in blocks of rows: (slice of the rows, float32 (rows of the block, others))."""
    rows, others = _centre(rows, others)
    left, right = _widen(rows, others)
    size = max(1, ROWS * OTHERS // max(len(others), 1))
    for start in range(0, len(rows), size):
        part = slice(start, min(start + size, len(rows)))
        squares = left[part] @ right.T
        squares += np.einsum("ij,ij->i", rows[part], rows[part])[:, None]
        yield part, squares


def rounding(rows: np.ndarray, others: np.ndarray) -> float:
    """An approximate upper bound on the rounding error of a squared distance from `blocks`."""
    rows, others = _centre(rows, others)
    longest = max(float(np.einsum("ij,ij->i", r, r).max()) for r in (rows, others))
    return 16 * float(np.finfo(np.float32).eps) * longest


def _centre(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both moved so that the mean of `others` is 0, because rounding errors grow with the length of rows."""
    middle = others.mean(axis=0, dtype=np.float64).astype(np.float32)
    return rows.astype(np.float32) - middle, others.astype(np.float32) - middle


def _widen(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left = np.hstack([-2 * rows, np.ones((len(rows), 1), np.float32)])
    right = np.hstack([others, np.einsum("ij,ij->i", others, others)[:, None]])
    return np.ascontiguousarray(left, np.float32), np.ascontiguousarray(right, np.float32)


def _least(block: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """The `num` smallest values of each row and their places. It overwrites the block; repeated argmin beats a sort."""
    row_numbers = np.arange(len(block))
    values, at = np.empty((len(block), num), np.float32), np.empty((len(block), num), np.int64)
    for place in range(num):
        at[:, place] = block.argmin(axis=1)
        values[:, place] = block[row_numbers, at[:, place]]
        block[row_numbers, at[:, place]] = np.inf
    return values, at
