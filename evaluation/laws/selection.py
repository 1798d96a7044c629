"""What checking and provenance are worth: Feng's breakdown share, Kanabar and Gastpar's effective sample sizes."""

import math
from collections.abc import Sequence
from typing import Literal


def breakdown_share(keep_right: float, keep_wrong: float) -> float:
    """The share of wrong synthetic labels above which selected data teach the wrong rule: 1 / (1 + psi/phi).

    phi = P(kept | right), psi = P(kept | wrong). Feng et al. 2025 (2406.07515), theorem 4.2: accuracy tends to 1 below
    it and to 0 above. Raises ValueError unless 0 < phi <= 1 and 0 <= psi <= 1.
    """
    if not 0 < keep_right <= 1 or not 0 <= keep_wrong <= 1:
        raise ValueError("keep rates are probabilities, and that of right rows is above 0")
    return 1 / (1 + keep_wrong / keep_right)


def wrong_kept(share_wrong: float, keep_right: float, keep_wrong: float) -> float:
    """The share of wrong labels among kept rows (Bayes); 1/2 at the breakdown share."""
    wrong = share_wrong * keep_wrong
    kept = wrong + (1 - share_wrong) * keep_right
    return wrong / kept if kept else 0.0


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
