"""The chain loop of every family and regime: mix, fit, sample, gate, measure.

The loop moves a block of chains from generation to generation. The pool keeps the rows that a regime may still train
on. Random numbers are spawned per (seed, block, generation, stage), whatever the regime: chains of one seed share
their first generation, and regimes are compared on common random numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Gate, Measures, Piece
from gristmill.generators.chains.gates.results import NUM_FRESH, Tally
from gristmill.generators.families.contract import stream
from gristmill.records.errors import UserError
from gristmill.records.mixing.mixing import Mixture, Part, plan
from gristmill.records.mixing.regimes import REAL, SYNTHETIC, Regime, Source

DATA, MIX, FIT, SAMPLE, GATE, MEASURE, FRESH = range(7)  # stages of a generation, each with its own random numbers
MAX_TRIES = 50  # number of samples of a model for rows that pass the gates, with shortfall = "resample"

RegimeAt = Callable[[int], Regime]


@dataclass(frozen=True)
class Fork:
    """`[[forks]]` of a study: another regime from generation `at` on."""

    at: int
    regime: Regime


class Outcome(NamedTuple):
    """One generation of a block."""

    generation: int
    mixture: Mixture
    num_new: int  # new real rows
    num_made: int  # rows that the model made
    num_kept: int  # rows for the pool: those that passed the gates, at most as many as the next generation needs
    measures: Measures
    model: Any
    rows: Any  # rows for later generations: with gates those in the pool, without gates all rows that the model made


@dataclass
class Pool:
    """Real and synthetic rows so far, by source, as `ChainFamily.hold` returns them. Rows are never changed."""

    batches: dict[Source, Any] = field(default_factory=dict)
    counts: dict[Source, int] = field(default_factory=dict)
    load: Callable[[Source], Any] | None = None  # reads a batch that is counted and not in memory

    def add(self, source: Source, batch: Any, num: int) -> None:
        self.batches[source], self.counts[source] = batch, num

    def get(self, source: Source) -> Any:
        if source not in self.batches and self.load:
            self.batches[source] = self.load(source)
        return self.batches[source]

    def piece(self, part: Part) -> Piece:
        return Piece(tuple(map(self.get, part.sources)), part.num, part.rows, part.weight)

    def forget(self, is_needed: Callable[[Source], bool]) -> None:
        for source in [s for s in self.batches if not is_needed(s)]:
            del self.batches[source]


def generations(
    family: ChainFamily,
    regime_at: RegimeAt,
    n: int,
    span: range,
    seed: int,
    block: int,
    pool: Pool,
    gates: Sequence[Gate] = (),
) -> Iterator[Outcome]:
    """Run the generations of `span` (counted from 1) of block number `block`. `pool` holds the earlier rows, and grows.

    Raises UserError, naming the generation, when the regime's mixture is impossible.
    """
    later: dict[int, list[Regime]] = {span.stop: []}  # a fork may need rows that the regime before it no longer needs
    for generation in reversed(span):
        others, regime = later[generation + 1], regime_at(generation + 1)
        later[generation] = others if any(regime is other for other in others) else [regime, *others]
    width = block_width(type(family), gates)
    for generation in span:

        def random(stage: int, at: int = generation) -> np.random.Generator:
            return stream(seed, block, at, stage)

        mixture = plan(regime_at(generation), generation, n, pool.counts, width, random(MIX))
        fresh = Source(REAL, generation)
        num_new = max((part.num for part in mixture.parts if fresh in part.sources), default=0)
        if num_new:
            pool.add(fresh, family.hold(_real(family, width, num_new, generation, random(DATA))), num_new)
        model = family.fit([pool.piece(part) for part in mixture.parts], random(FIT))
        after = regime_at(generation + 1)
        tally = Tally(family, gates)
        first_sample, num_sampled, pool_rows = sample_and_gate(family, model, after, generation, n, tally, pool, random)
        pool.add(Source(SYNTHETIC, generation), family.hold(pool_rows), family.count(pool_rows))
        measures = family.measure(model, first_sample, random(MEASURE))
        if gates:
            measures = {**measures, **tally.measures(pool_rows, family.real(1, NUM_FRESH, random(FRESH)))}
        rows = pool_rows if gates else first_sample
        yield Outcome(generation, mixture, num_new, num_sampled, family.count(pool_rows), measures, model, rows)
        pool.forget(lambda source, at=generation: any(r.needed_later(source, at) for r in later[at]))  # type: ignore[misc]


def _real(family: ChainFamily, width: int, num: int, generation: int, random: np.random.Generator) -> Any:
    """New real rows. Raises UserError when there are fewer than `num`, because missing rows would count for the cap."""
    rows = family.real(width, num, random)
    if family.count(rows) < num:
        raise UserError(
            f"generation {generation}: the regime needs {num:,} real rows, and there are {family.count(rows):,}"
        )
    return rows


def block_width(family: type[ChainFamily], gates: Sequence[Any]) -> int:
    """Chains in a block: 1 with gates, because gates keep other rows in every chain."""
    return 1 if gates else family.block


def sample_size(after: Regime, generation: int, n: int, gates: Sequence[Any]) -> int:
    """Number of rows in one sample of a generation's model.

    Without gates it is the size of the next generation, whatever share of it the regime takes, so that regimes share
    the sample. With gates it is that share, because gates count the rows of a sample.
    """
    return after.num_made(generation, n) if gates else after.num_rows(generation + 1, n)


def earlier_sources(after: Regime, generation: int) -> list[Source]:
    """Rows of earlier models that the next generation may train on beside the rows of this generation."""
    newest = Source(SYNTHETIC, generation)
    return [s for s in after.batches(generation + 1) if s.origin == SYNTHETIC and s != newest]


def sample_and_gate(
    family: ChainFamily,
    model: Any,
    after: Regime,
    generation: int,
    n: int,
    tally: Tally,
    pool: Pool,
    random: Callable[[int], np.random.Generator],
) -> tuple[Any, int, Any]:
    """(rows of the first sample, number of rows of all samples, rows for the pool).

    With gates and shortfall = "resample" the model is sampled until enough rows have passed, up to MAX_TRIES times.
    """
    sampling, gating = random(SAMPLE), random(GATE)
    max_rows, num = after.num_made(generation, n), sample_size(after, generation, n, tally.gates)
    sample = family.sample(model, num, sampling)
    num_sampled_rows = family.count(sample)
    if not tally.gates:
        return sample, num_sampled_rows, family.head(sample, max_rows)
    parts: list[Any] = []

    def earlier() -> list[Any]:
        return [*map(pool.get, earlier_sources(after, generation)), *parts]

    parts.append(tally.through(sample, gating, earlier))
    for _ in range(MAX_TRIES - 1 if after.shortfall == "resample" else 0):
        if sum(map(family.count, parts)) >= max_rows:
            break
        more = family.sample(model, num, sampling)
        parts.append(tally.through(more, gating, earlier))
        num_sampled_rows += family.count(more)
    return sample, num_sampled_rows, family.head(family.concat(parts), max_rows)


def regimes(first: Regime, forks: Sequence[Fork]) -> RegimeAt:
    """The regime of each generation."""
    forks_by_generation = sorted(forks, key=lambda f: f.at)

    def at(generation: int) -> Regime:
        regime = first
        for fork in forks_by_generation:
            if fork.at <= generation:
                regime = fork.regime
        return regime

    return at


def facts_of(outcome: Outcome) -> Mapping[str, Any]:
    """Columns of a generation beside its measures."""
    counts = {"num_new": outcome.num_new, "num_made": outcome.num_made, "num_kept": outcome.num_kept}
    return {**outcome.mixture.facts(), **counts}
