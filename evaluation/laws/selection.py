"""What checking and provenance are worth: Feng's breakdown share, Kanabar and Gastpar's effective sample sizes."""


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
