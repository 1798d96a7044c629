"""The cosine noise schedule of all diffusion models: Nichol and Dhariwal 2021, equation 17.

alpha_bar(t) = cos^2((t / T + s) / (1 + s) * pi / 2) / alpha_bar(0) is the share of the signal's variance after t of T
steps; beta of a step is the share of its variance that the step replaces by noise, capped at `MAX_BETA`.
"""

import math

import numpy as np

OFFSET = 0.008  # s: keeps the first betas from being too small
MAX_BETA = 0.999


def betas(num_steps: int) -> np.ndarray:
    """beta of each step: float64 (num_steps,), each in (0, MAX_BETA]."""
    times = np.arange(num_steps + 1) / num_steps
    level = np.cos((times + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2
    return np.minimum(1 - level[1:] / level[:-1], MAX_BETA)


def kept_signal(num_steps: int) -> np.ndarray:
    """alpha_bar after 0 to `num_steps` steps: float64 (num_steps + 1,), from 1 down to near 0."""
    return np.concatenate([[1.0], np.cumprod(1 - betas(num_steps))])
