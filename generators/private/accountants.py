"""Epsilon of the events of a private fit, by the accountants of two libraries.

dp-accounting (Google): privacy loss distributions (PLD; Koskela et al. 2020), an upper bound that is tight to a grid of
1e-4, and Renyi divergences (RDP; Mironov 2017, Mironov et al. 2019). opacus: privacy random variables (PRV; Gopi et al.
2021), an upper bound within `PRV_ERROR`, and RDP. For the same events, PLD <= PRV <= PLD + 2 * PRV_ERROR.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from warnings import catch_warnings, simplefilter

from gristmill.records.extras import require

RDP_ORDERS = (*(order / 10 for order in range(20, 110)), *range(11, 64), 80, 128, 256, 512, 1024)
PRV_ERROR = 0.01  # of epsilon


@dataclass(frozen=True)
class Event:
    """`count` Gaussian mechanisms of standard deviation `noise_multiplier`, each on a Poisson sample of rate
    `sampling_rate` (1: on all rows). `what` names what is learned.

    The noised value moves by at most 1 (2-norm) when a unit is added or removed, and so by at most 2 when a unit is
    replaced; the accountants consider this.
    """

    what: str
    noise_multiplier: float
    sampling_rate: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf or not 0 < self.sampling_rate <= 1 or self.count < 0:
            raise ValueError(f"no such event: {self}")


def _pool_events(events: Sequence[Event]) -> list[tuple[float, float, int]]:
    """(noise multiplier, sampling rate, count) of the events.

    Gaussian mechanisms on all rows compose exactly into a single one: their precisions add (Dong, Roth, Su 2019).
    """
    precision = sum(e.count / e.noise_multiplier**2 for e in events if e.sampling_rate == 1)
    sampled = [(e.noise_multiplier, e.sampling_rate, e.count) for e in events if e.sampling_rate < 1]
    return [(precision**-0.5, 1.0, 1), *sampled] if precision else sampled


def _compose(accountant: Any, events: Sequence[Event]) -> Any:
    """An accountant of dp-accounting that has seen `events`."""
    from dp_accounting import dp_event

    for noise, rate, count in _pool_events(events):
        gaussian = dp_event.GaussianDpEvent(noise)
        accountant.compose(gaussian if rate == 1 else dp_event.PoissonSampledDpEvent(rate, gaussian), count)
    return accountant


def epsilon_pld(events: Sequence[Event], delta: float, adjacency: str = "add-remove") -> float:
    """Epsilon of all events together by their privacy loss distribution; an upper bound, tight to the grid (1e-4)."""
    dp_accounting: Any = require("dp_accounting", "private")
    from dp_accounting.pld import PLDAccountant

    relations = dp_accounting.NeighboringRelation
    relation = relations.REPLACE_ONE if adjacency == "replace" else relations.ADD_OR_REMOVE_ONE
    return max(0.0, float(_compose(PLDAccountant(relation), events).get_epsilon(delta)))


def epsilon_rdp(events: Sequence[Event], delta: float) -> float:
    """Epsilon of all events together by Renyi divergences, adding or removing one unit."""
    require("dp_accounting", "private")
    from dp_accounting.rdp import RdpAccountant

    return max(0.0, float(_compose(RdpAccountant(RDP_ORDERS), events).get_epsilon(delta)))


def epsilon_prv(events: Sequence[Event], delta: float, adjacency: str = "add-remove") -> float:
    """Epsilon of all events together by opacus' PRV accountant: an upper bound, at most 2 * PRV_ERROR above PLD."""
    assert adjacency == "add-remove"
    return _opacus_epsilon("PRVAccountant", events, delta, eps_error=PRV_ERROR)


def epsilon_rdp_opacus(events: Sequence[Event], delta: float) -> float:
    """As `epsilon_rdp`, by opacus."""
    return _opacus_epsilon("RDPAccountant", events, delta)


def _opacus_epsilon(name: str, events: Sequence[Event], delta: float, **accuracy: float) -> float:
    require("opacus", "private")
    from opacus import accountants

    accountant = getattr(accountants, name)()
    accountant.history = _pool_events(events)
    with catch_warnings():
        simplefilter("ignore")  # that the best order of RDP is the largest
        return max(0.0, float(accountant.get_epsilon(delta, **accuracy)))


@lru_cache(maxsize=4096)
def _cached_pld(events: tuple[Event, ...], delta: float, adjacency: str) -> float:
    return epsilon_pld(events, delta, adjacency)


@lru_cache(maxsize=4096)
def _cached_prv(events: tuple[Event, ...], delta: float, adjacency: str) -> float:
    return epsilon_prv(events, delta, adjacency)


@dataclass(frozen=True)
class Accountants:
    """The accountants of one engine: `epsilon` holds the budget, `epsilon_rdp` is the cross-check."""

    name: str  # of the first, as statements give it
    epsilon: Callable[[tuple[Event, ...], float, str], float]
    epsilon_rdp: Callable[[Sequence[Event], float], float]


ACCOUNTANTS = {
    "ghost": Accountants("PLD", _cached_pld, epsilon_rdp),
    "opacus": Accountants("PRV (engine opacus)", _cached_prv, epsilon_rdp_opacus),
}
