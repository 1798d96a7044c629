"""Categories: absorption, survival of types, and sampling at a temperature."""

import math

import numpy as np

from gristmill.evaluation.laws.discrete import shares, survival_factor


def zipf(num: int, exponent: float = 1.0) -> np.ndarray:
    """Shares of `num` types, proportional to rank^-exponent."""
    return shares(np.arange(1, num + 1, dtype=np.float64) ** -exponent)


def gini_simpson(probabilities: np.ndarray) -> float:
    """1 - sum p^2: the chance that two draws differ."""
    return float(1 - (shares(probabilities) ** 2).sum())


def entropy(probabilities: np.ndarray) -> float:
    """Shannon's, in nats."""
    p = shares(probabilities)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def absorbing(probabilities: np.ndarray) -> np.ndarray:
    """The chance of each type to be the only one in the end: its own share, as each share is a martingale."""
    return shares(probabilities)


def absorption_time(p: float, n: int) -> float:
    """Mean generations until one of two types is alone, about -2n [p ln p + (1-p) ln(1-p)]: the diffusion limit (Ewens
    2004, section 5.4; haploid). A few per cent above the chain's own mean for n = 50."""
    if not 0 < p < 1:
        return 0.0
    return -2 * n * (p * math.log(p) + (1 - p) * math.log1p(-p))


def not_absorbed(p: float, n: int, k: int) -> tuple[float, float]:
    """Bounds on P(both of two types alive at generation k): [4p(1-p) q^k, 2np(1-p) q^k], q = 1-1/n; not above 1.
    Seddik et al. 2024, as Suresh et al. 2025 restate them."""
    left = p * (1 - p) * (1 - 1 / n) ** k
    return min(1.0, 4 * left), min(1.0, 2 * n * left)


def survival_bounds(p: float, n: int, k: int) -> tuple[float, float]:
    """Bounds on the same for a share p of n rows (Bernoulli): [1 - e^(-npg), 1 - (1 - 3np^2 - 3kp) e^(-npg)], g = g_k.
    Suresh et al. 2025, Bernoulli theorem; the upper one says nothing unless 3np^2 + 3kp is small."""
    gone = math.exp(-n * p * survival_factor(k))
    return 1 - gone, min(1.0, 1 - (1 - 3 * n * p * p - 3 * k * p) * gone)


def median_life(count: int) -> int:
    """The generation by which a type seen `count` times is lost with probability 1/2 or more: about 2 count / ln 2."""
    g, k = 1.0, 1
    while math.exp(-count * g) < 0.5:
        g, k = -math.expm1(-g), k + 1
    return k


def heated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Shares proportional to p^(1/T): what is sampled at temperature T > 0. Raises ValueError for other T."""
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, not {temperature}")
    p = shares(probabilities)
    logs = np.where(p > 0, np.log(np.where(p > 0, p, 1)) / temperature, -np.inf)
    made = np.exp(logs - logs.max())
    return shares(made)


def temperature_path(truth: np.ndarray, temperature: float, k: int, real: float = 0.0) -> np.ndarray:
    """The shares of model k + 1 for many rows: k times p -> real * truth + (1-real) * heated(p).

    Without real rows p_k is proportional to p_0^(T^-k): to the commonest type for T < 1, to the uniform for T > 1,
    "heat death" (Marchi et al. 2024); the mixture is derived here.
    """
    found = start = shares(truth)
    for _ in range(k):
        found = real * start + (1 - real) * heated(found, temperature)
    return found


def temperature_plateau(
    truth: np.ndarray, temperature: float, real: float, tolerance: float = 1e-12, most: int = 100_000
) -> np.ndarray:
    """Where `temperature_path` ends: iterated until no share moves by more than the tolerance. Raises ValueError when
    `most` generations are not enough (a real fraction near 0)."""
    found = start = shares(truth)
    for _ in range(most):
        after = real * start + (1 - real) * heated(found, temperature)
        if float(np.abs(after - found).max()) <= tolerance:
            return after
        found = after
    raise ValueError(f"no fixed point within {most} generations at temperature {temperature}, real fraction {real}")
