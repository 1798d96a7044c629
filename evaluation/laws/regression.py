"""Linear regression y = x'theta + s e by least squares; x is standard normal in d dimensions, n rows, n > d + 1.

The test error is the excess risk E |theta_k - theta|^2, without the noise of test labels. The labels of every
generation have the noise s^2 (`noise`). "Same design": all generations share one X, as in the official code of
Gerstgrasser et al. "Fresh design": each generation draws its own X.
"""

import math


def one_fit(n: int, d: int, noise: float = 1.0) -> float:
    """Test error of one fit to real rows, s^2 d / (n-d-1): an inverse Wishart's mean. ValueError for n <= d + 1."""
    if d < 1 or n <= d + 1:
        raise ValueError(f"a regression on {d} features needs more than {d + 1} rows, not {n}")
    return noise * d / (n - d - 1)


def replace_error(n: int, d: int, k: int, noise: float = 1.0) -> float:
    """k s^2 d / (n-d-1), for either design. Gerstgrasser et al. 2024, theorem for replaced data; Dohmatob et al.
    2024."""
    return k * one_fit(n, d, noise)


def accumulate_error(n: int, d: int, k: int, noise: float = 1.0) -> float:
    """s^2 d / (n-d-1) sum_{i<=k} 1/i^2, at most pi^2/6 of one fit: exact for the same design; a fresh design lies a
    little below. Gerstgrasser et al. 2024, theorem for accumulated data."""
    return one_fit(n, d, noise) * math.fsum(1 / (i * i) for i in range(1, k + 1))


def passed_on(num_synthetic: int, num_real: int, d: int) -> float:
    """The share of an error |delta|^2 of synthetic labels that a pooled fit keeps: E |S^-1 S2 delta|^2 / |delta|^2.

    S2 = X2'X2 is of the synthetic rows, S of all rows. Derived here: S^-1/2 S2 S^-1/2 is a matrix beta, free of S, so
    E U_ij U_kl = A d_ij d_kl + B (d_ik d_jl + d_il d_jk); A and B follow from the second moments of the Wishart S2.
    Tends to (num_synthetic / n)^2 for d much less than n. Exact for a fresh design.
    """
    n, m = num_synthetic + num_real, num_synthetic
    one_fit(n, d)
    if not m or not num_real:
        return float(m > 0)
    trace_squared, square_trace = n * n * d * d + 2 * n * d, n * d * (n + d + 1)  # E (tr S)^2, E tr S^2
    left, right = m * m * d * d + 2 * m * d, m * d * (m + d + 1)
    # left = A trace_squared + 2 B square_trace; right = A square_trace + B (square_trace + trace_squared)
    determinant = trace_squared * (square_trace + trace_squared) - 2 * square_trace**2
    if d == 1:  # U is a number; its square is A + 2 B whatever their split
        return m * (m + 2) / (n * (n + 2))
    a = (left * (square_trace + trace_squared) - 2 * square_trace * right) / determinant
    b = (trace_squared * right - square_trace * left) / determinant
    return a + b + b * (n * d - 2) / (n - d - 1)  # E tr S tr S^-1 = d (n d - 2) / (n - d - 1), by Basu's theorem


def fresh_mix(num_real: int, num_synthetic: int, d: int, k: int, noise: float = 1.0) -> float:
    """Exact test error of generation k: generation 1 has num_real + num_synthetic real rows, every later one num_real
    fresh real rows and num_synthetic of the last model, fresh design. Derived here: e' = passed_on * e + one_fit."""
    fresh = one_fit(num_real + num_synthetic, d, noise)
    kept = passed_on(num_synthetic, num_real, d)
    error = fresh
    for _ in range(k - 1):
        error = kept * error + fresh
    return error
