"""An empirical lower bound on epsilon from one training run (Steinke, Nasr, Jagielski 2023).

Canaries are rows made for the audit. A fair coin decides for each canary whether it joins the training rows. An attack
gives each canary a score, higher for likelier members. A private fit bounds the number of right guesses, so many right
guesses prove a large epsilon. The bound is for adding and removing one row. It can refute a claim and never prove one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import binom

MAX_EPSILON = 64.0


@dataclass(frozen=True)
class Audit:
    """With probability `confidence`, epsilon is at least `epsilon_lower`."""

    epsilon_lower: float
    confidence: float
    delta: float
    num_canaries: int
    num_guesses: int  # number of canaries with a guess; the attack abstains from the others
    num_correct: int


def toss(num_canaries: int, seed: int) -> np.ndarray:
    """Whether each canary is included: bool (num_canaries,), fair and independent."""
    return np.random.default_rng(seed).random(num_canaries) < 0.5


def audit(
    scores: np.ndarray,
    is_in: np.ndarray,
    delta: float,
    confidence: float = 0.95,
    shares: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
) -> Audit:
    """The best lower bound among attacks that guess for `shares` of the canaries, those with the most extreme scores.

    `scores` float (canaries,), finite; `is_in` bool (canaries,). Half of the guesses are "in" (highest scores), half
    are "out" (lowest scores); equal scores keep their order. Bonferroni's correction accounts for the several shares.
    Raises ValueError for scores that are NaN, for other shapes, and for fewer than two
    canaries.
    """
    scores, is_in = np.asarray(scores, np.float64), np.asarray(is_in, bool)
    if scores.ndim != 1 or scores.shape != is_in.shape or len(scores) < 2:
        raise ValueError("scores and is_in must hold one number and one flag for each of at least two canaries")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    if not 0 <= delta < 1 or not 0 < confidence < 1 or not all(0 < s <= 1 for s in shares) or not shares:
        raise ValueError("delta, confidence and shares must be between 0 and 1")
    order, audits = np.argsort(scores, kind="stable"), []
    for share in shares:
        half = max(1, int(len(scores) * share / 2))
        correct = int(is_in[order[-half:]].sum() + (~is_in[order[:half]]).sum())
        lower = epsilon_lower(len(scores), 2 * half, correct, delta, 1 - (1 - confidence) / len(shares))
        audits.append(Audit(lower, confidence, delta, len(scores), 2 * half, correct))
    return max(audits, key=lambda a: a.epsilon_lower)


def epsilon_lower(num_canaries: int, num_guesses: int, num_correct: int, delta: float, confidence: float) -> float:
    """The smallest epsilon that is not refuted, where p_value reaches 1 - confidence; 0 when nothing is shown."""
    low, high = 0.0, MAX_EPSILON
    if p_value(num_canaries, num_guesses, num_correct, low, delta) >= 1 - confidence:
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if p_value(num_canaries, num_guesses, num_correct, middle, delta) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def p_value(num_canaries: int, num_guesses: int, num_correct: int, epsilon: float, delta: float) -> float:
    """An upper bound on the probability of num_correct right guesses under an (epsilon, delta)-private fit:
    f(v) + 2 m delta max_i (f(v - i) - f(v)) / i, where f(v) is the probability of v or more successes in num_guesses
    coins with bias e^epsilon / (1 + e^epsilon).
    """
    share = float(expit(epsilon))
    tail = float(binom.sf(num_correct - 1, num_guesses, share))
    steps = np.arange(1, num_correct + 1)
    gains = (binom.sf(num_correct - steps - 1, num_guesses, share) - tail) / steps
    return min(1.0, tail + 2 * num_canaries * delta * float(gains.max(initial=0.0)))
