"""Power laws over infinitely many types (Hutter 2021; Dohmatob et al. 2024)."""

from scipy.special import gamma, zeta


def exponent(beta: float) -> float:
    """c of error ~ n^-c: 1 - 1/beta, for beta > 1 (Hutter 2021; Dohmatob et al. 2024, section 2)."""
    _heavy(beta)
    return 1 - 1 / beta


def unseen_power_law(beta: float, n: int) -> float:
    """The same for infinitely many types and large n: Gamma(1 - 1/beta) zeta(beta)^(-1/beta) n^-(1-1/beta) / beta.
    Derived here (the sum as an integral)."""
    _heavy(beta)
    return float(gamma(1 - 1 / beta) * zeta(beta) ** (-1 / beta) / beta * n ** -(1 - 1 / beta))


def cut_plateau(beta: float, rank: int) -> float:
    """The error that no amount of rows mends when types beyond `rank` are never written: sum_{i>rank} p_i =
    zeta(beta, rank+1) / zeta(beta), near rank^-(beta-1). Dohmatob et al. 2024, section 3."""
    _heavy(beta)
    return float(zeta(beta, rank + 1) / zeta(beta))


def _heavy(beta: float) -> None:
    if not beta > 1:
        raise ValueError(f"a power law over infinitely many types needs beta above 1, not {beta}")
