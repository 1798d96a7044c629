"""Draws with and without replacement for many chains at once."""

import numpy as np


def draw_places(
    chains: int, num: int, take: int, random: np.random.Generator, with_replacement: bool = False
) -> np.ndarray:
    """Indices below `num`, int64 (chains, take); distinct within a chain unless `with_replacement`.

    Without replacement it uses Floyd's method (Bentley and Floyd 1987), a column at a time for all chains, so that time
    grows with `take` and not with `num`.
    """
    if with_replacement:
        return random.integers(0, num, (chains, take))
    if take > num:
        raise ValueError(f"cannot draw {take} of {num} without replacement")
    places = np.empty((chains, take), np.int64)
    if take * 8 > num:
        for chain in range(chains):
            places[chain] = random.permutation(num)[:take]
        return places
    columns = np.empty((take, chains), np.int64)  # transposed, because the comparisons run over columns
    for row in range(take):
        last = num - take + row
        drawn = random.integers(0, last + 1, chains)
        is_taken = (columns[:row] == drawn).any(axis=0)
        columns[row] = np.where(is_taken, last, drawn)
    return np.ascontiguousarray(columns.T)
