"""The cap on the synthetic share, and the policies for an exceeded cap or a shortfall of rows.

All amounts have the same unit, rows or tokens. Studies (records/mixing/mixing.py) and releases (jobs/release/mixture)
use these functions.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import Shortfall

MAX_TOP_UP = 1000  # real rows per synthetic row that the policy "real" may add
TOLERANCE = 1e-12  # of a share by weight; a counted share has no tolerance


class ShortfallPlan(NamedTuple):
    """The remedy for a pool with fewer rows than wanted."""

    take: int  # from the pool
    with_replacement: bool  # whether some are taken more than once
    from_real: int  # real rows in place of the missing rows
    weight: float  # of each row


class CappedAmounts(NamedTuple):
    """Amounts within the cap."""

    num_real: float
    num_synthetic: float
    weight: float  # of each synthetic row


def most_synthetic(num_real: float, cap: float) -> int | None:
    """The largest number of synthetic rows beside `num_real` real rows within the cap; None without a limit.

    The number is rounded down and checked by the share, so that rounding errors admit no extra row.
    """
    if cap >= 1:
        return None
    num = math.floor(cap * num_real / (1 - cap) + 1e-9)
    while num and num / (num + num_real) > cap:
        num -= 1
    return num


def least_real(num_synthetic: int, cap: float) -> int:
    """The smallest number of real rows beside `num_synthetic` rows within the cap, which is above 0."""
    num = max(0, math.ceil(num_synthetic * (1 - cap) / cap - 1e-9))
    while num_synthetic and num_synthetic / (num + num_synthetic) > cap:
        num += 1
    return num


def effective_size(weights: Iterable[tuple[float, float]]) -> float:
    """Kish's effective sample size, (sum of weights)^2 / sum of squared weights, of pairs (number, weight of each)."""
    weights = list(weights)
    squares = sum(num * weight**2 for num, weight in weights)
    return sum(num * weight for num, weight in weights) ** 2 / squares if squares else 0.0


def cover_shortfall(
    wanted: int, available: int, policy: Shortfall, where: str, unit: str = "rows", pool: str = "the pool"
) -> ShortfallPlan:
    """The remedy of a policy for `available` rows where more are wanted. Raises UserError for policy "fail"."""
    if policy == "fail":
        raise UserError(
            f"{where}: {wanted:,} {unit} are wanted from {pool}, which has {available:,}; "
            f"set shortfall to shrink, resample, real or reweight, or make more rows"
        )
    if policy == "resample":
        return ShortfallPlan(wanted, True, 0, 1.0)
    weight = wanted / available if policy == "reweight" else 1.0
    return ShortfallPlan(available, False, wanted - available if policy == "real" else 0, weight)


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
    """The remedy of a policy for these amounts, synthetic rows at `weight` each; None when the cap is kept already.

    Raises UserError for policy "fail", and when the policy cannot keep the cap.
    """
    if cap >= 1 or not num_synthetic:
        return None
    room = cap / (1 - cap) * num_real
    limit = most_synthetic(num_real, cap) or 0
    if num_synthetic * weight <= (room if policy == "reweight" else limit):
        return None
    fits_nothing = policy != "real" and (room == 0 if policy == "reweight" else limit == 0)
    if policy == "fail" or fits_nothing:
        hint = f": {no_real}" if not num_real else "; set shortfall to shrink, real or reweight"
        share = num_synthetic * weight / (num_synthetic * weight + num_real)
        raise UserError(
            f"{where}: {num_synthetic:,} synthetic {unit} beside {num_real:,} real {unit} are a share of "
            f"{share:.3f}, above synthetic_max = {cap}"
            + (hint if policy == "fail" or not num_real else "")
            + (", and none of them fits" if fits_nothing and policy != "fail" and num_real else "")
        )
    if policy == "reweight":
        return CappedAmounts(num_real, num_synthetic, min(weight, room / num_synthetic))
    if policy != "real":
        return CappedAmounts(num_real, limit, weight)
    if cap == 0:
        return CappedAmounts(num_real + num_synthetic, 0, weight)
    if num_synthetic * (1 - cap) > MAX_TOP_UP * num_synthetic * cap:
        raise UserError(
            f"{where}: synthetic_max = {cap} needs more than {MAX_TOP_UP:,} real {unit} per synthetic one; "
            f"set shortfall to shrink or reweight"
        )
    return CappedAmounts(least_real(int(num_synthetic), cap), num_synthetic, weight)
