"""The cap on the synthetic share, and what is done where it is exceeded or where too little is there.

Amounts are counted in one unit, rows or tokens. Studies (records/mixing/mixing.py) and releases
(jobs/release/mixture) ask here.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import Shortfall

MAX_TOP_UP = 1000  # real rows beside a synthetic one that the policy "real" may ask for
TOLERANCE = 1e-12  # of a share by weight; one that is counted is held against the cap as it is


class ShortfallPlan(NamedTuple):
    """What is taken where less is there than is wanted."""

    take: int
    again: bool  # some of it more than once
    from_real: int  # real ones in place of those that lack
    weight: float  # of each one taken


class CappedAmounts(NamedTuple):
    """What keeps to the cap."""

    num_real: float
    num_synthetic: float
    weight: float  # of each synthetic one


def most_synthetic(num_real: float, cap: float) -> int | None:
    """The most synthetic rows beside `num_real` real ones that keep to the cap; None without a limit.

    Rounded down and then checked as it will be held against the cap, so that floats cannot let one row too many in.
    """
    if cap >= 1:
        return None
    num = math.floor(cap * num_real / (1 - cap) + 1e-9)
    while num and num / (num + num_real) > cap:
        num -= 1
    return num


def least_real(num_synthetic: int, cap: float) -> int:
    """The fewest real rows beside so many synthetic ones that keep to the cap, which is above 0."""
    num = max(0, math.ceil(num_synthetic * (1 - cap) / cap - 1e-9))
    while num_synthetic and num_synthetic / (num + num_synthetic) > cap:
        num += 1
    return num


def effective_size(weights: Iterable[tuple[float, float]]) -> float:
    """Kish's effective sample size, (sum of weights)^2 over the sum of their squares, of (how many, weight each)."""
    weights = list(weights)
    squares = sum(num * weight**2 for num, weight in weights)
    return sum(num * weight for num, weight in weights) ** 2 / squares if squares else 0.0


def cover_shortfall(
    wanted: int, there: int, policy: Shortfall, where: str, unit: str = "rows", pool: str = "the pool"
) -> ShortfallPlan:
    """What a policy makes of `there` where more are wanted. Raises UserError when it is to fail."""
    if policy == "fail":
        raise UserError(
            f"{where}: {wanted:,} {unit} are to come from {pool} and {there:,} are there; "
            f"set shortfall to shrink, resample, real or reweight, or make more rows"
        )
    if policy == "resample":
        return ShortfallPlan(wanted, True, 0, 1.0)
    weight = wanted / there if policy == "reweight" else 1.0
    return ShortfallPlan(there, False, wanted - there if policy == "real" else 0, weight)


def keep_cap(
    num_real: float,
    num_synthetic: float,
    cap: float,
    policy: Shortfall,
    where: str,
    *,
    weight: float = 1.0,
    unit: str = "rows",
    no_real: str = "the regime has no real rows; set real and real_fraction",
) -> CappedAmounts | None:
    """What a policy makes of so much real and so much synthetic, that at `weight` each; None when the cap is kept.

    Raises UserError when the policy is to fail, and when it cannot keep the cap.
    """
    if cap >= 1 or not num_synthetic:
        return None
    room = cap / (1 - cap) * num_real
    limit = most_synthetic(num_real, cap) or 0
    if num_synthetic * weight <= (room if policy == "reweight" else limit):
        return None
    is_lost = policy != "real" and (room == 0 if policy == "reweight" else limit == 0)
    if policy == "fail" or is_lost:
        hint = f": {no_real}" if not num_real else "; set shortfall to shrink, real or reweight"
        share = num_synthetic * weight / (num_synthetic * weight + num_real)
        raise UserError(
            f"{where}: {num_synthetic:,} synthetic {unit} beside {num_real:,} real ones are a share of "
            f"{share:.3f}, above synthetic_max = {cap}"
            + (hint if policy == "fail" or not num_real else "")
            + (", and not one of them fits" if is_lost and policy != "fail" and num_real else "")
        )
    if policy == "reweight":
        return CappedAmounts(num_real, num_synthetic, min(weight, room / num_synthetic))
    if policy != "real":
        return CappedAmounts(num_real, limit, weight)
    if cap == 0:
        return CappedAmounts(num_real + num_synthetic, 0, weight)
    if num_synthetic * (1 - cap) > MAX_TOP_UP * num_synthetic * cap:
        raise UserError(
            f"{where}: synthetic_max = {cap} asks for more than {MAX_TOP_UP:,} real {unit} beside each synthetic one; "
            f"set shortfall to shrink or reweight"
        )
    return CappedAmounts(least_real(int(num_synthetic), cap), num_synthetic, weight)
