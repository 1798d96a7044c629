"""Successive halving: many candidates on few asks, then the best half on twice as many, until the time is spent.

Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", with a baseline
in every round: speeds are compared within a round only, so a machine that slows down between rounds changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

GAIN = 0.05  # a candidate counts as faster than the baseline from this share on: less is noise
GROWTH = 2  # of the asks from round to round
SLOWEST = 3.0  # a trial is cut when it takes this many times as long as the baseline's on as many asks
FIRST_SHARE = 0.15  # of the budget: the most that the baseline's first asks may take


@dataclass(frozen=True)
class Candidate:
    """Settings to measure: `changes` of keys below [generator], such as {"engine.max_num_seqs": 128}."""

    changes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For example "max_num_seqs = 128, threads = 2"."""
        words = [f"{key.removeprefix('engine.')} = {_word(value)}" for key, value in self.changes.items()]
        return ", ".join(words) or "the recipe's own"


BASELINE = Candidate({})


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("method", value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Trial:
    """One engine with a candidate's settings, measured on some asks."""

    candidate: Candidate
    num_asks: int
    cost_s: float = 0.0  # seconds of the budget that it took
    start_s: float = 0.0  # until the engine answered
    run_s: float = 0.0  # seconds of answering
    tokens_per_s: float = 0.0  # while the batch was full
    rows_per_s: float = 0.0
    num_devices: float = 1.0
    is_cut: bool = False  # its time was over before every ask was answered
    failure: str = ""  # why there is no result, in one line
    rows: Mapping[str, str] = field(default_factory=dict)  # digest of each row by id
    facts: Any = None  # of the engine and its rows, for `propose`
    round: int = 0

    @property
    def score(self) -> float:
        """Tokens per second and device; 0 for a failure."""
        return 0.0 if self.failure else self.tokens_per_s / self.num_devices


@dataclass(frozen=True)
class TrialLimits:
    """Seconds that a trial may take: `start_s` until its engine is up, `run_s` for its asks, `whole_s` in all."""

    start_s: float
    run_s: float
    whole_s: float


Measure = Callable[[Candidate, int, TrialLimits], Trial]


def halve(
    measure: Measure,
    propose: Callable[[Trial], Sequence[Candidate]],
    num_asks: int,
    budget_s: float,
    most_asks: int | None = None,
) -> Iterator[Trial]:
    """The trials one by one, the baseline first in each round.

    propose: candidates in the order of their promise, from the first trial of the baseline. The first round takes as
    many of them as leave time for a second round, and more where there is no second one. Survivors of a round are the
    better half of its candidates, without failures and without those that are slower than the baseline by more than
    GAIN. After the first round, `combinations` of the winners join. It ends when at most one candidate was left in a
    round, or when the time `budget_s` allows no baseline and candidate more. num_asks: of the first round, or as many
    as `measure` makes of them. most_asks: the recipe has no more.
    """
    left = budget_s
    number, num_asks = 1, min(num_asks, most_asks or num_asks)

    def trial(candidate: Candidate, base: Trial | None) -> Trial:
        nonlocal left
        trial = replace(measure(candidate, num_asks, _limits(base, num_asks, left, budget_s)), round=number)
        left -= trial.cost_s
        return trial

    base = trial(BASELINE, None)
    yield base
    if base.failure:
        return
    num_asks = base.num_asks
    waiting = list(propose(base))
    planned = _affordable(len(waiting), base, left)
    entrants, waiting = waiting[:planned], waiting[planned:]
    while entrants:
        results: list[Trial] = []
        survivors: list[Candidate] = []
        more_asks = min(num_asks * GROWTH, most_asks or num_asks * GROWTH)
        has_next = False
        while entrants and left >= _predicted(base, num_asks):
            results.append(trial(entrants.pop(0), base))
            yield results[-1]
            survivors = _survivors(base, results)
            has_next = more_asks > num_asks and left >= 2 * _predicted(base, more_asks)
            if not entrants and waiting and not (has_next and survivors and len(results) > 1):
                entrants.append(waiting.pop(0))  # the time does not go to a second round
        if not has_next or len(results) < 2 or not survivors:
            return
        number, num_asks, waiting, entrants = number + 1, more_asks, [], survivors
        base = trial(BASELINE, base)
        yield base
        if base.failure:
            return


def _survivors(base: Trial, results: Sequence[Trial]) -> list[Candidate]:
    """The better half, the best first; behind the best of the first round the combination of its winners."""
    ranked = sorted((t for t in results if not t.failure), key=lambda t: -t.score)
    better = [t.candidate for t in ranked[: -(-len(results) // 2)] if t.score >= base.score * (1 - GAIN)]
    return better[:1] + (combinations(base, ranked) if base.round == 1 else []) + better[1:]


def combinations(base: Trial, ranked: Sequence[Trial]) -> list[Candidate]:
    """The best change of each key among the candidates that beat the baseline, together; none for less than two."""
    changes: dict[str, Any] = {}
    num_winners = 0
    for winner in ranked:
        if winner.score >= base.score * (1 + GAIN) and not set(winner.candidate.changes) & set(changes):
            changes |= winner.candidate.changes
            num_winners += 1
    return [Candidate(changes)] if num_winners > 1 else []


def best_of(trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
    """The candidates with their last speed as a share of the baseline's of the same round.

    The later the round, the better: a candidate that reached a later round was measured on more asks.
    """
    bases = {t.round: t for t in trials if not t.candidate.changes and t.score}
    last: dict[str, tuple[Trial, float]] = {}
    for trial in trials:
        base = bases.get(trial.round)
        if trial.candidate.changes and trial.score and base is not None:
            last[trial.candidate.name] = trial, trial.score / base.score
    return sorted(last.values(), key=lambda pair: (-pair[0].round, -pair[1]))


def _limits(base: Trial | None, num_asks: int, left: float, budget_s: float) -> TrialLimits:
    if base is None:
        return TrialLimits(left, FIRST_SHARE * budget_s, left)
    run_s = base.run_s * num_asks / base.num_asks
    if not base.is_cut:
        run_s = max(SLOWEST * run_s, SLOWEST * base.start_s)  # to cut a run that is shorter than its start saves little
    return TrialLimits(min(left, SLOWEST * base.start_s + 30), min(left, run_s), left)


def _predicted(base: Trial, num_asks: int) -> float:
    """Seconds that a trial on `num_asks` asks takes at the baseline's speed."""
    return base.cost_s + base.run_s * (num_asks / base.num_asks - 1)


def _affordable(number: int, base: Trial, left: float) -> int:
    """How many of `number` candidates leave time for a second round with the baseline and the better half."""
    first, second = _predicted(base, base.num_asks), _predicted(base, GROWTH * base.num_asks)
    while number > 1 and number * first + (1 + -(-number // 2)) * second > left:
        number -= 1
    return number
