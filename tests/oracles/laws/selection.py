"""Effective sample size of mixed batches (Kanabar and Gastpar 2025)."""

import math
from collections.abc import Sequence
from typing import Literal


def effective_size(
    sizes: Sequence[float],
    real: Sequence[float],
    known: Literal["unassisted", "watermark", "oracle"],
    hit_rate: float = 0.0,
    false_rate: float = 0.0,
) -> float:
    """How many real rows batches of `sizes` rows with real fractions `real` are worth to a minimax estimator.

    unassisted: sum n a^2. oracle (the origin of each row is known): sum n a. watermark: sum n a^2 (1 + chi^2(Q1 || Q)),
    where Q1 is the detector's output on real rows (flagged with `false_rate`) and Q on all (synthetic rows are flagged
    with `hit_rate`). Kanabar and Gastpar 2025.
    """
    if len(sizes) != len(real) or any(not 0 <= a <= 1 for a in real):
        raise ValueError("one real fraction in [0, 1] for each size")
    if known == "oracle":
        return math.fsum(n * a for n, a in zip(sizes, real))
    if known == "unassisted":
        return math.fsum(n * a * a for n, a in zip(sizes, real))
    return math.fsum(n * a * _told_apart(a, hit_rate, false_rate) for n, a in zip(sizes, real))


def _told_apart(real: float, hit_rate: float, false_rate: float) -> float:
    """a (1 + chi^2) = sum Q1 (a Q1 / Q) over the detector's outputs: how far it believes a real row, in the mean."""
    total = 0.0
    for own, others in ((false_rate, hit_rate), (1 - false_rate, 1 - hit_rate)):
        every = real * own + (1 - real) * others
        total += own * (real * own / every) if every > 0 else 0.0
    return total
