"""Successive halving over made-up engines whose speed is known."""

from collections.abc import Mapping
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs.tune.halving import BASELINE, GAIN, Candidate, Trial, TrialLimits, best_of, halve

NAMES = "abcdefgh"
START_S = 5.0


class Engines:
    """Engines that start in START_S seconds. The speed of a candidate is the product of those of its changes."""

    def __init__(self, speeds: Mapping[str, float], failing: frozenset[str] = frozenset(), drift: float = 1.0) -> None:
        """drift: every trial is this many times as slow as the one before."""
        self.speeds, self.failing, self.drift, self.num_trials = speeds, failing, drift, 0

    def speed(self, candidate: Candidate) -> float:
        speed = 1.0
        for name in candidate.changes:
            speed *= self.speeds[name]
        return speed

    def measure(self, candidate: Candidate, num_asks: int, limits: TrialLimits) -> Trial:
        self.num_trials += 1
        if set(candidate.changes) & self.failing:
            return Trial(candidate, num_asks, min(1.0, limits.whole_s), failure="out of memory")
        if limits.start_s < START_S:
            return Trial(candidate, num_asks, limits.start_s, failure="starting took too long")
        rate = self.speed(candidate) / self.drift**self.num_trials
        most_s = min(limits.run_s, limits.whole_s - START_S)
        run_s = min(num_asks / rate, most_s)
        return Trial(
            candidate,
            num_asks,
            START_S + run_s,
            START_S,
            run_s,
            tokens_per_s=100 * rate,
            is_cut=num_asks / rate > most_s,
        )


def run(engines: Engines, budget_s: float, most_asks: int | None = None, num_asks: int = 4) -> list[Trial]:
    candidates = [Candidate({name: 1}) for name in engines.speeds]
    return list(halve(engines.measure, lambda base: candidates, num_asks, budget_s, most_asks))


SPEEDS = st.lists(st.floats(0.2, 4), max_size=len(NAMES)).map(lambda speeds: dict(zip(NAMES, speeds)))
FAILING = st.frozensets(st.sampled_from(NAMES))


@given(SPEEDS, FAILING, st.floats(1, 1000), st.floats(0.9, 1.2))
def test_laws_of_every_run(speeds: dict[str, float], failing: frozenset[str], budget_s: float, drift: float) -> None:
    trials = run(Engines(speeds, failing, drift), budget_s)
    assert sum(trial.cost_s for trial in trials) <= budget_s * (1 + 1e-9)
    rounds = [[t for t in trials if t.round == number] for number in range(1, trials[-1].round + 1)]
    for number, round_trials in enumerate(rounds):
        assert round_trials[0].candidate == BASELINE
        assert all(trial.candidate != BASELINE for trial in round_trials[1:])
        assert all(trial.num_asks == 4 * 2**number for trial in round_trials)
    first = [t.candidate.name for t in rounds[0][1:]]
    assert first == [Candidate({name: 1}).name for name in list(speeds)[: len(first)]]
    failed: set[str] = set()
    for trial in trials:
        assert not set(trial.candidate.changes) & failed
        if trial.failure == "out of memory":
            failed |= set(trial.candidate.changes)
    for before, after in pairwise(rounds):
        assert len(after) - 2 <= -(-(len(before) - 1) // 2)  # the better half, the baseline and a combination


@given(SPEEDS, FAILING)
def test_with_time_enough_the_fastest_wins(speeds: dict[str, float], failing: frozenset[str]) -> None:
    engines = Engines(speeds, failing)
    trials = run(engines, 1e6)
    measured = [t for t in trials if t.candidate != BASELINE]
    assert {name for t in measured for name in t.candidate.changes} == set(speeds)
    best = best_of(trials)
    fastest = max((engines.speed(t.candidate) for t in measured if not t.failure), default=0)
    if fastest >= 1 + GAIN:
        assert engines.speed(best[0][0].candidate) == fastest
        assert abs(best[0][1] - fastest) < 1e-6
    winners = [name for name in speeds if name not in failing and speeds[name] >= 1 + GAIN]
    if len(winners) > 1:
        assert set(best[0][0].candidate.changes) == set(winners)  # together, since their gains multiply


def test_a_machine_that_slows_down_favours_nobody() -> None:
    speeds = {"a": 1.3, "b": 1.6, "c": 0.8, "d": 0.9}
    trials = run(Engines(speeds, drift=1.02), 1e6)
    best, ratio = best_of(trials)[0]
    assert set(best.candidate.changes) == {"a", "b"} and abs(ratio - 1.3 * 1.6) < 0.1


def test_it_ends_with_the_asks_and_without_a_baseline() -> None:
    trials = run(Engines({"a": 1.3, "b": 1.2, "c": 1.1}), 1e6, most_asks=4)
    assert {trial.round for trial in trials} == {1}
    broken = run(Engines({"a": 1.3}), 3.0)
    assert len(broken) == 1 and broken[0].failure


def test_a_slow_candidate_is_cut() -> None:
    trials = run(Engines({"a": 0.01}), 1e6)
    assert trials[1].is_cut and trials[1].run_s <= 3 * max(trials[0].run_s, START_S)
    assert abs(best_of(trials)[0][1] - 0.01) < 1e-6


def test_time_that_is_too_short_for_a_second_round_goes_to_further_candidates() -> None:
    engines = Engines(dict.fromkeys(NAMES, 1.2))
    trials = run(engines, 5 * (START_S + 4) + 0.1, most_asks=4)  # a trial of the baseline takes 4 s and its start
    assert {trial.round for trial in trials} == {1} and len(trials) >= 5
    slower = run(Engines(dict.fromkeys(NAMES, 0.8)), 1e6)
    assert {trial.round for trial in slower} == {1} and len(slower) == 1 + len(NAMES)
