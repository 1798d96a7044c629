"""Differential privacy: the budget of a recipe, the account of a fit's spending, and the statement of its model.

Everything that a private fit learns from rows is an event of the account: a Gaussian mechanism, on all rows or on a
Poisson sample. Epsilon is computed from all events together by a tight accountant, which the budget is compared with,
and by RDP as a cross-check; see gristmill.generators.private.accountants. docs/privacy.md explains the guarantee.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gristmill.generators.private.accountants import ACCOUNTANTS, Accountants, Event
from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.records.spec import later

MAX_STEPS = 10_000_000
MIN_USED_SHARE = 0.999  # share of the allowed epsilon at which the search for a noise multiplier ends


class BudgetExceeded(Exception):
    """The next step would exceed the budget; the model is as it was before that step."""


@dataclass(frozen=True)
class PrivacySpec:
    """`[privacy]` of a fit recipe."""

    epsilon: float  # budget: the largest epsilon that the fit may spend
    delta: float  # chance that the bound by epsilon fails; must be below 1/N
    unit: str = "row"  # word for whose presence is hidden; a row is a person only if the table was made that way
    # neighbouring tables: with and without a row ("add-remove"), or with another row ("replace")
    adjacency: Literal["add-remove", "replace"] = "add-remove"
    max_grad_norm: float = 1.0  # 2-norm to which DP-SGD clips the gradient of each row
    # DP-SGD: standard deviation of the noise over max_grad_norm; default: spends epsilon
    noise_multiplier: float | None = None
    # library that clips gradients and accounts: our ghost norms with dp-accounting, or opacus
    engine: Literal["ghost", "opacus"] = later("ghost")

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ValueError("epsilon must be above 0 and finite")
        if not 0 < self.delta < 1:
            raise ValueError("delta must lie between 0 and 1")
        for value in (self.max_grad_norm, 1.0 if self.noise_multiplier is None else self.noise_multiplier):
            if not 0 < value < math.inf:
                raise ValueError("max_grad_norm and noise_multiplier must be above 0 and finite")
        if self.engine == "opacus" and self.adjacency == "replace":
            raise ValueError('the accountants of engine = "opacus" know adjacency = "add-remove" only')


@dataclass
class Account:
    """The budget of a fit and its events so far. `num_units` is public."""

    spec: PrivacySpec
    num_units: int
    events: list[Event] = field(default_factory=list)
    _epsilon_memo: dict[Any, list[int]] = field(
        default_factory=dict, repr=False, compare=False
    )  # largest count that fits, smallest that does not

    def __post_init__(self) -> None:
        check_installed("private", "opacus" if self.spec.engine == "opacus" else "dp_accounting")
        if self.num_units < 1 or self.spec.delta >= 1 / self.num_units:
            raise UserError(
                f"privacy.delta = {self.spec.delta:g} is not below 1/N = {1 / self.num_units:g} for {self.num_units:,} "
                f"{self.spec.unit}s: it would allow publishing single rows whole. Take 1/(10 N) or less"
            )

    def epsilon(self, *more: Event) -> float:
        """Epsilon at the spec's delta after all events and `more`, by PLD."""
        events = _merge([*self.events, *more])
        return self._accountants.epsilon(tuple(events), self.spec.delta, self.spec.adjacency) if events else 0.0

    @property
    def _accountants(self) -> Accountants:
        return ACCOUNTANTS[self.spec.engine]

    def charge(self, event: Event) -> None:
        """Record `event` before its outcome is used. Raises BudgetSpent, and records nothing, when it does not fit.

        Cheap for counts that an earlier `room` covers.
        """
        if not self._fits(event):
            raise BudgetExceeded(f"{event.what} would exceed epsilon {self.spec.epsilon:g}")
        self.events = _merge([*self.events, event])

    def room(self, event: Event, most: int = MAX_STEPS) -> int:
        """How often `event` fits into the rest of the budget, at most `most`. Exact: another one would exceed it."""

        def fits(count: int) -> bool:
            return self._fits(replace(event, count=count))

        if most <= 0 or not fits(1):
            return 0
        whole = _merge([*self.events, replace(event, count=most)])
        is_near = self._accountants.epsilon_rdp(whole, self.spec.delta) < 2 * self.spec.epsilon
        if is_near and fits(most):  # epsilons far above the budget take long to compute
            return most
        low, high = 1, min(4, most)
        while fits(high):
            if high == most:
                return most
            low, high = high, min(high * 4, most)
        while high - low > 1:  # fits(low), not fits(high)
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _fits(self, event: Event) -> bool:
        """Whether `event` fits. Epsilon grows with the count, so bounds from earlier calls settle most calls."""
        others = [e for e in self.events if _key(e) != _key(event)]
        count = event.count + sum(e.count for e in self.events if _key(e) == _key(event))
        bounds = self._epsilon_memo.setdefault((frozenset(others), _key(event)), [0, MAX_STEPS + 1])
        if count <= bounds[0]:
            return True
        if count >= bounds[1]:
            return False
        fits = self.epsilon(event) <= self.spec.epsilon
        bounds[0 if fits else 1] = count
        return fits

    def noise_for(self, event_name: str, sampling_rate: float, count: int, share: float = 1.0) -> float:
        """The noise multiplier with which `count` events and all earlier ones spend `share` of epsilon, within 0.1%.

        Raises UserError when nothing is left.
        """
        epsilon_limit = self.spec.epsilon * share
        guess = 0.4 + 4 * sampling_rate * math.sqrt(count) / epsilon_limit  # about right for delta = 1e-6
        noise = least_noise(
            lambda sigma: self.epsilon(Event(event_name, sigma, sampling_rate, count)), epsilon_limit, guess
        )
        if noise is None:
            raise UserError(f"privacy: nothing is left of epsilon {self.spec.epsilon:g} for {event_name}")
        return noise

    def literals(self) -> list[dict[str, Any]]:
        return [e.__dict__ for e in self.events]

    def restore(self, events: list[dict[str, Any]]) -> None:
        self.events = [Event(**e) for e in events]

    def statement(self) -> dict[str, Any]:
        """The statement of the guarantee in the model's folder."""
        is_replace = self.spec.adjacency == "replace"
        return {
            "guarantee": "(epsilon, delta)-differential privacy",
            "epsilon": round_up(self.epsilon()),
            "epsilon_accountant": self._accountants.name,
            "epsilon_rdp": None
            if is_replace
            else round_up(self._accountants.epsilon_rdp(self.events, self.spec.delta)),
            "engine": self.spec.engine,
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


def least_noise(epsilon: Callable[[float], float], limit: float, guess: float = 1.0) -> float | None:
    """The noise multiplier at which the falling function `epsilon` reaches `limit`, from the safe side.

    None if 1e6 is not enough. Both are close to power laws of each other, so the search is linear in their logarithms.
    It starts from a multiplier that is large enough, because large epsilons take long to compute.
    """
    high, low, e_low = guess, 0.0, math.inf
    while (e_high := epsilon(high)) > limit:
        low, e_low, high = high, e_high, high * 1.5
        if high > 1e6:
            return None
    while e_high < MIN_USED_SHARE * limit and (high - low) / high > 1e-4:
        step = (
            math.log(limit * (1 + MIN_USED_SHARE) / 2 / e_high) if e_high > 0 else math.inf
        )  # wanted change of log(epsilon)
        slope = 1.0 if math.isinf(e_low) else math.log(e_low / max(e_high, 1e-9)) / math.log(high / low)
        sigma = high * math.exp(-min(step / slope, 0.4))
        if low:  # keep away from the ends, so that both close in
            sigma = min(max(sigma, low * (high / low) ** 0.05), low * (high / low) ** 0.95)
        e_sigma = epsilon(sigma)
        if e_sigma <= limit:
            high, e_high = sigma, e_sigma
        else:
            low, e_low = sigma, e_sigma
    return high


def _key(event: Event) -> tuple[str, float, float]:
    return event.what, event.noise_multiplier, event.sampling_rate


def _merge(events: list[Event]) -> list[Event]:
    """Equal events merged, with their counts added; the order of events does not change epsilon."""
    counts: dict[tuple[str, float, float], int] = {}
    for e in events:
        counts[_key(e)] = counts.get(_key(e), 0) + e.count
    return [Event(*key, count) for key, count in counts.items() if count]


def privacy_line(statement: dict[str, Any]) -> str:
    """One line that states a guarantee whole, or that there is none."""
    if statement["guarantee"] is None:
        return str(statement["text"])
    rdp = f", {statement['epsilon_rdp']:g} by RDP" if statement["epsilon_rdp"] is not None else ""
    return (
        f"epsilon {statement['epsilon']:g} by {statement['epsilon_accountant']}{rdp} at delta {statement['delta']:g}; "
        f"unit: {statement['unit']}, adjacency: {statement['adjacency']}, N = {statement['num_units']:,}"
    )
