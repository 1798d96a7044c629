"""Linear regression: limits for many rows, and labels of another truth."""

import math

from gristmill.evaluation.laws.regression import one_fit, passed_on

ACCUMULATED_LIMIT = math.pi**2 / 6  # of one fit's error


def fresh_mix_limit(real: float, n: int, d: int, noise: float = 1.0) -> float:
    """About the plateau with a fraction `real` of fresh real rows: one fit's / (a(2-a)), for d much less than n. The
    constant of He et al. 2025 and of Dohmatob et al. 2025 (E / (1 - p2^2)); `fresh_mix_plateau` is exact."""
    return one_fit(n, d, noise) / (real * (2 - real))


def fresh_mix_plateau(num_real: int, num_synthetic: int, d: int, noise: float = 1.0) -> float:
    """The same for k to infinity: one_fit / (1 - passed_on)."""
    return one_fit(num_real + num_synthetic, d, noise) / (1 - passed_on(num_synthetic, num_real, d))


def strong_collapse(num_real: int, num_synthetic: int, d: int, gap: float, noise: float = 1.0) -> float:
    """Test error when the synthetic labels follow theta + delta with |delta|^2 = gap: one_fit + passed_on * gap, exact
    for an isotropic design. Derived here."""
    n = num_real + num_synthetic
    return one_fit(n, d, noise) + passed_on(num_synthetic, num_real, d) * gap


def strong_collapse_limit(n: float, share: float, d: int, gap: float, noise: float = 1.0, weight: float = 1.0) -> float:
    """The same for many rows, s^2 d/n + zeta with zeta = share^2 gap: Dohmatob et al. 2025 ("Strong model collapse",
    2410.04840), scaling limit p2^2 tr Delta. zeta does not fall with n: a synthetic share must go to 0, not be small.

    `weight` multiplies the share that the synthetic rows pull with: zeta = share^2 weight^2 gap; the best weight is 0.
    """
    return noise * d / n + (share * weight) ** 2 * gap
