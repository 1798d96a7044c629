"""Selection of labels by a verifier: breakdown share and wrong labels that remain."""


def breakdown_share(keep_right: float, keep_wrong: float) -> float:
    """The share of wrong synthetic labels above which selected rows teach the wrong rule: 1 / (1 + psi/phi).

    phi = P(kept | right), psi = P(kept | wrong). Feng et al. 2025 (2406.07515), theorem 4.2: accuracy tends to 1 below
    it and to 0 above. Raises ValueError unless 0 < phi <= 1 and 0 <= psi <= 1.
    """
    if not 0 < keep_right <= 1 or not 0 <= keep_wrong <= 1:
        raise ValueError("keep_right must be in (0, 1] and keep_wrong in [0, 1]")
    return 1 / (1 + keep_wrong / keep_right)


def wrong_share(share_wrong: float, keep_right: float, keep_wrong: float) -> float:
    """The share of wrong labels among kept rows (Bayes' theorem); 1/2 at the breakdown share."""
    wrong = share_wrong * keep_wrong
    kept = wrong + (1 - share_wrong) * keep_right
    return wrong / kept if kept else 0.0
