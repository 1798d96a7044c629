"""Fresh real rows in every generation: plateaus, the cap rule, and weights of real rows.

n rows a generation, of which the fraction `real` (alpha) are fresh real rows and the rest come from the last model.
One pooled fit (MLE). Variances are in units of the true variance. `bias`: as in evaluation/laws/gaussian.py.
"""

import math


def step(n: int, real: float, spread: float, variance: float, bias: float = 1.0) -> tuple[float, float]:
    """(Var mu, E v) of the next generation from those of this one; exact where real * n is a whole number.

    e' = (1-a)^2 e + [a + (1-a) bias v]/n and v' = a + (1-a)(e + bias v) - e'. Derived here; with bias 1 the anchor
    e' = (1-a)^2 e + [1-(1-a)e]/n.
    """
    within = real + (1 - real) * bias * variance
    after = (1 - real) ** 2 * spread + within / n
    return after, within + (1 - real) * spread - after


def variance(n: int, k: int, real: float, bias: float = 1.0) -> float:
    """E v_k: generation 1 of n real rows, k - 1 steps."""
    spread, found = 1 / n, 1 - 1 / n
    for _ in range(k - 1):
        spread, found = step(n, real, spread, found, bias)
    return found


def plateau(n: int, real: float, bias: float = 1.0) -> float:
    """E v_k for k to infinity: g a / (1 - g (1-a) bias), g = 1 - 1/(n(2-a)); without bias 1 - 1/(n a(2-a) + 1 - a).

    Derived here. Raises ValueError without real rows or where the bias is so large that the variance has no limit.
    """
    if not 0 < real <= 1:
        raise ValueError(f"the real fraction must lie in (0, 1], not {real}")
    g = 1 - 1 / (n * (2 - real))
    if g * (1 - real) * bias >= 1:
        raise ValueError(f"bias {bias} with a real fraction of {real}: the variance grows without limit")
    return g * real / (1 - g * (1 - real) * bias)


def memory(n: int, real: float) -> float:
    """By which factor a generation (without bias) draws nearer to the plateau: (1-a)(1-a-1/n). Derived here."""
    return (1 - real) * (1 - real - 1 / n)


def rows_needed(loss: float, real: float) -> float:
    """Rows a generation for a plateau of at least 1 - loss, without bias: (1/loss - 1 + a) / (a(2-a)), about
    1/(2 a loss). It is the number of real rows that counts, a n."""
    return (1 / loss - 1 + real) / (real * (2 - real))


def gain(real: float) -> float:
    """n_real Var mu for n to infinity, 1/(2-a): below 1, so the loop estimates the mean better than its current real
    rows alone do. Derived here."""
    return 1 / (2 - real)


def least_real(variance: float, bias: float) -> float:
    """The cap rule: the least real fraction whose plateau is `variance` or more, for many rows:
    v (1 - bias) / (1 - v bias). One less that is the largest synthetic share. Derived here; 0 without bias (>= 1)."""
    if not 0 <= variance < 1:
        raise ValueError(f"the variance to be kept must lie in [0, 1), not {variance}")
    return 0.0 if bias >= 1 else variance * (1 - bias) / (1 - variance * bias)


def helpful_rows(bias: float) -> float:
    """About how many synthetic rows help (by W2 to the truth) beside many real ones: 4c/(1-bias)^2 with
    c = (2-bias) + (1 + bias(1-bias))/2; infinite without bias. Derived here, to leading order, for the phase transition
    of Alemohammad et al. 2024, section 5.3: it does not depend on the number of real rows."""
    if bias >= 1:
        return math.inf
    return 4 * (2 - bias + (1 + bias * (1 - bias)) / 2) / (1 - bias) ** 2


def weighted_error(weight: float, ratio: float) -> float:
    """n MSE of the mean in the limit, theta' = weight * real + (1-weight) * synthetic: [w^2 + r(1-w)^2] / (1-(1-w)^2).

    `ratio`: real rows over synthetic rows, r = n/m. He, Xu and Cheng 2025 (arXiv 2502.18049).
    """
    if not 0 < weight <= 1:
        raise ValueError(f"the weight must lie in (0, 1], not {weight}")
    return (weight**2 + ratio * (1 - weight) ** 2) / (1 - (1 - weight) ** 2)


def pooled_error(ratio: float) -> float:
    """n MSE in the limit when all rows weigh alike, w = r/(1+r): (r+1)/(r+2). He, Xu and Cheng 2025."""
    return (ratio + 1) / (ratio + 2)
