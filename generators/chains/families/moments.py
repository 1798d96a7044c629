"""First and second moments of rows by source, merged exactly (Chan, Golub, LeVeque 1983)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gristmill.generators.chains.contract import Piece


class RowMoments(NamedTuple):
    """Rows with their mean and the sum of outer products of their deviations from it."""

    rows: np.ndarray  # (chains, rows, columns)
    mean: np.ndarray  # (chains, columns)
    outer: np.ndarray  # (chains, columns, columns)


def hold(rows: np.ndarray) -> RowMoments:
    """The rows of one source with their moments."""
    mean = rows.mean(axis=1) if rows.shape[1] else np.zeros((rows.shape[0], rows.shape[2]))
    apart = rows - mean[:, None]
    return RowMoments(rows, mean, apart.transpose(0, 2, 1) @ apart)


def merge(pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """(mean (chains, columns), summed outer products about it, total weight, sum of squared weights) of all rows."""
    parts = []
    for piece in pieces:
        if piece.rows is None:
            parts += [(h.mean, h.outer, h.rows.shape[1], piece.weight) for h in piece.batches]
        else:
            drawn = hold(drawn_rows(piece))
            parts.append((drawn.mean, drawn.outer, piece.num, piece.weight))
    heavy = np.array([num * weight for _, _, num, weight in parts])
    total = float(heavy.sum())
    means = np.stack([mean for mean, _, _, _ in parts])
    mean = np.tensordot(heavy / total, means, axes=1)
    apart = means - mean
    outer = np.einsum("s,sci,scj->cij", heavy, apart, apart)
    for _, within, _, weight in parts:
        outer += weight * within
    return mean, outer, total, float(sum(num * weight**2 for _, _, num, weight in parts))


def drawn_rows(piece: Piece) -> np.ndarray:
    """The rows at `piece.rows`, (chains, num, columns). They are copied source by source, without a copy of the whole
    pool."""
    assert piece.rows is not None
    chains, num = piece.rows.shape
    ends = np.cumsum([h.rows.shape[1] for h in piece.batches])
    flat = piece.rows.ravel()
    source = np.searchsorted(ends, flat, side="right")
    order = np.argsort(source, kind="stable")
    stops = np.searchsorted(source[order], np.arange(len(ends)), side="right")
    place = flat - (ends - [h.rows.shape[1] for h in piece.batches])[source]
    chain = np.repeat(np.arange(chains), num)
    rows = np.empty((chains * num, piece.batches[0].rows.shape[2]))
    start = 0
    for held, stop in zip(piece.batches, stops):
        at = order[start:stop]
        rows[at] = held.rows[chain[at], place[at]]
        start = stop
    return rows.reshape(chains, num, -1)
