"""Draws without and with replacement for many chains at once."""

import numpy as np


def draw_places(chains: int, num: int, take: int, random: np.random.Generator, again: bool = False) -> np.ndarray:
    """Places in a line of `num`, int64 (chains, take); distinct within a chain unless `again`.

    Without replacement by Floyd's method (Bentley and Floyd 1987), one column at a time for all chains, so that time
    grows with what is taken and not with the line.
    """
    if again:
        return random.integers(0, num, (chains, take))
    if take > num:
        raise ValueError(f"{take} of {num} cannot be drawn without replacement")
    found = np.empty((chains, take), np.int64)
    if take * 8 > num:
        for chain in range(chains):
            found[chain] = random.permutation(num)[:take]
        return found
    columns = np.empty((take, chains), np.int64)  # what is compared again and again lies together
    for at in range(take):
        last = num - take + at
        drawn = random.integers(0, last + 1, chains)
        is_taken = (columns[:at] == drawn).any(axis=0)
        columns[at] = np.where(is_taken, last, drawn)
    return np.ascontiguousarray(columns.T)
