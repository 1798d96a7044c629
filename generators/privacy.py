"""Differential privacy: the budget of a recipe, the account of what a fit has spent, the statement of its model.

Everything that a private fit learns from rows is an event of the account: a Gaussian mechanism, or one on a Poisson
sample. Epsilon is computed from all events together, by privacy loss distributions (PLD; Koskela et al. 2020, as in
Google's dp-accounting), which is tight, and by Renyi divergences (RDP; Mironov 2017, Mironov et al. 2019), which is the
cross-check. The budget is held against the first. docs/privacy.md says what the guarantee means and what it does not.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from records.errors import UserError

MAX_STEPS = 10_000_000


class BudgetSpent(Exception):
    """The next step would exceed the budget; the model is as it was before that step."""


@dataclass(frozen=True)
class PrivacySpec:
    """`[privacy]` of a fit recipe."""

    epsilon: float
    delta: float
    unit: str = "row"  # whose presence is hidden: one row is one person, if that is how the table was made
    adjacency: Literal["add-remove", "replace"] = "add-remove"
    max_grad_norm: float = 1.0  # DP-SGD: each unit's gradient is clipped to this 2-norm
    noise_multiplier: float | None = None  # DP-SGD: standard deviation over max_grad_norm; default: spends epsilon

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise ValueError("epsilon must be above 0")
        if not 0 < self.delta < 1:
            raise ValueError("delta must lie between 0 and 1")
        if self.max_grad_norm <= 0 or (self.noise_multiplier is not None and self.noise_multiplier <= 0):
            raise ValueError("max_grad_norm and noise_multiplier must be above 0")


@dataclass(frozen=True)
class Event:
    """`count` Gaussian mechanisms of sensitivity 1 and standard deviation `noise_multiplier`, each on a Poisson sample
    of rate `sampling_rate` (1: on all rows). `what` says in words what was learnt."""

    what: str
    noise_multiplier: float
    sampling_rate: float = 1.0
    count: int = 1


@dataclass
class Account:
    """What a fit may spend and has spent. `num_units` is public."""

    spec: PrivacySpec
    num_units: int
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.spec.delta >= 1 / self.num_units:
            raise UserError(
                f"privacy.delta = {self.spec.delta:g} is not below 1/N = {1 / self.num_units:g} for {self.num_units:,} "
                f"{self.spec.unit}s: it would allow giving single ones away whole. Take 1/(10 N) or less"
            )

    def epsilon(self, *more: Event) -> float:
        """Epsilon at the spec's delta after all events and `more`, by PLD."""
        events = _merged([*self.events, *more])
        return epsilon_pld(events, self.spec.delta, self.spec.adjacency) if events else 0.0

    def charge(self, event: Event) -> None:
        """Note `event`, before its outcome is used. Raises BudgetSpent when it does not fit; then nothing is noted."""
        if self.epsilon(event) > self.spec.epsilon:
            raise BudgetSpent(f"{event.what} would exceed epsilon {self.spec.epsilon:g}")
        self.events = _merged([*self.events, event])

    def room(self, event: Event, most: int = MAX_STEPS) -> int:
        """How many times `event` fits into what is left, at most `most`."""

        def fits(count: int) -> bool:
            return self.epsilon(replace(event, count=count)) <= self.spec.epsilon

        if most <= 0 or not fits(1):
            return 0
        if fits(most):
            return most
        low, high = 1, most  # fits(low), not fits(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def noise_for(self, what: str, sampling_rate: float, count: int, share: float = 1.0) -> float:
        """The least noise multiplier with which `count` events keep within `share` of epsilon (all events counted).

        Raises UserError where nothing is left for them.
        """
        allowed = self.spec.epsilon * share

        def fits(sigma: float) -> bool:
            return self.epsilon(Event(what, sigma, sampling_rate, count)) <= allowed

        low, high = 0.05, 1.0
        while not fits(high):
            low, high = high, high * 2
            if high > 1e5:
                raise UserError(f"privacy: nothing is left of epsilon {self.spec.epsilon:g} for {what}")
        while high / low > 1.001:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high

    def literals(self) -> list[dict[str, Any]]:
        return [e.__dict__ for e in self.events]

    def restore(self, events: list[dict[str, Any]]) -> None:
        self.events = [Event(**e) for e in events]

    def statement(self) -> dict[str, Any]:
        """What the model's folder says of its guarantee."""
        replaced = self.spec.adjacency == "replace"
        return {
            "guarantee": "(epsilon, delta)-differential privacy",
            "epsilon": round_up(self.epsilon()),
            "epsilon_accountant": "PLD",
            "epsilon_rdp": None if replaced else round_up(epsilon_rdp(self.events, self.spec.delta)),
            "delta": self.spec.delta,
            "unit": self.spec.unit,
            "adjacency": self.spec.adjacency,
            "num_units": self.num_units,
            "budget": {"epsilon": self.spec.epsilon, "delta": self.spec.delta},
            "events": self.literals(),
            "public": "the schema (columns, bounds, categories), the number of rows, and all settings of the fit",
        }


def round_up(value: float) -> float:
    """To four digits, never below the value."""
    return -(-value * 1e4 // 1) / 1e4


def _merged(events: list[Event]) -> list[Event]:
    """Equal events as one with their counts added; their order does not matter to what they spend."""
    counts: dict[tuple[str, float, float], int] = {}
    for e in events:
        key = e.what, e.noise_multiplier, e.sampling_rate
        counts[key] = counts.get(key, 0) + e.count
    return [Event(*key, count) for key, count in counts.items() if count]


def _composed(accountant: Any, events: list[Event]) -> Any:
    from dp_accounting import dp_event

    for e in events:
        one: Any = dp_event.GaussianDpEvent(e.noise_multiplier)
        if e.sampling_rate < 1:
            one = dp_event.PoissonSampledDpEvent(e.sampling_rate, one)
        accountant.compose(one, e.count)
    return accountant


def epsilon_pld(events: list[Event], delta: float, adjacency: str = "add-remove") -> float:
    """Epsilon of all events together by their privacy loss distribution; an upper bound, tight to the grid (1e-4)."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    relation = NeighboringRelation.REPLACE_ONE if adjacency == "replace" else NeighboringRelation.ADD_OR_REMOVE_ONE
    return max(0.0, float(_composed(PLDAccountant(relation), events).get_epsilon(delta)))


def epsilon_rdp(events: list[Event], delta: float) -> float:
    """Epsilon of all events together by Renyi divergences, adding or removing one unit."""
    from dp_accounting.rdp import RdpAccountant

    return max(0.0, float(_composed(RdpAccountant(), events).get_epsilon(delta)))
