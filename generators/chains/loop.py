"""The one chain loop: mix, fit, sample, gate, measure, for every family and every regime.

A block of chains goes from generation to generation; what a regime may still train on stays in the pool. Randomness is
spawned for each (seed, block, generation, stage), whatever the regime: chains of one seed have their first generation
in common, and regimes are compared on common random numbers.
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

DATA, MIX, FIT, SAMPLE, GATE, MEASURE, FRESH = range(7)  # stages of a generation, each with random numbers of its own
MAX_TRIES = 50  # times that a model is sampled for rows that pass the gates, under shortfall = "resample"

RegimeAt = Callable[[int], Regime]


@dataclass(frozen=True)
class Fork:
    """`[[forks]]` of a study: from this generation on another regime, on the chain as it stands."""

    at: int
    regime: Regime


class Outcome(NamedTuple):
    """One generation of a block."""

    generation: int
    mixture: Mixture
    num_new: int  # real rows that were drawn for it
    num_made: int
    num_kept: int  # by the gates, and as many as the next generation asks for
    measures: Measures
    model: Any
    made: Any  # rows to be kept for later generations: with gates those that passed, without all that were made


@dataclass
class Pool:
    """What was drawn and made so far, by source, as the family holds it. Rows are never changed."""

    held: dict[Source, Any] = field(default_factory=dict)
    counts: dict[Source, int] = field(default_factory=dict)
    load: Callable[[Source], Any] | None = None  # for what is counted and not held

    def add(self, source: Source, held: Any, num: int) -> None:
        self.held[source], self.counts[source] = held, num

    def get(self, source: Source) -> Any:
        if source not in self.held and self.load:
            self.held[source] = self.load(source)
        return self.held[source]

    def piece(self, part: Part) -> Piece:
        return Piece(tuple(map(self.get, part.sources)), part.num, part.rows, part.weight)

    def forget(self, needed: Callable[[Source], bool]) -> None:
        for source in [s for s in self.held if not needed(s)]:
            del self.held[source]


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
    """The generations of `span` (the first is 1), of block number `block`; `pool` holds what came before, and grows.

    Raises UserError, naming the generation, when a mixture cannot be made as the regime asks for it.
    """
    later: dict[int, list[Regime]] = {span.stop: []}  # a fork may want rows that the regime before it has left behind
    for generation in reversed(span):
        known, found = later[generation + 1], regime_at(generation + 1)
        later[generation] = known if any(found is other for other in known) else [found, *known]
    width = block_width(type(family), gates)
    for generation in span:

        def random(stage: int, at: int = generation) -> np.random.Generator:
            return stream(seed, block, at, stage)

        mixture = plan(regime_at(generation), generation, n, pool.counts, width, random(MIX))
        own = Source(REAL, generation)
        num_new = max((part.num for part in mixture.parts if own in part.sources), default=0)
        if num_new:
            pool.add(own, family.hold(_real(family, width, num_new, generation, random(DATA))), num_new)
        model = family.fit([pool.piece(part) for part in mixture.parts], random(FIT))
        after = regime_at(generation + 1)
        tally = Tally(family, gates)
        made, num_made, kept = passed(family, model, after, generation, n, tally, pool, random)
        pool.add(Source(SYNTHETIC, generation), family.hold(kept), family.count(kept))
        measures = family.measure(model, made, random(MEASURE))
        if gates:
            measures = {**measures, **tally.told(kept, family.real(1, NUM_FRESH, random(FRESH)))}
        last = kept if gates else made
        yield Outcome(generation, mixture, num_new, num_made, family.count(kept), measures, model, last)
        pool.forget(lambda source, at=generation: any(r.needed_later(source, at) for r in later[at]))  # type: ignore[misc]


def _real(family: ChainFamily, width: int, num: int, generation: int, random: np.random.Generator) -> Any:
    """Raises UserError where there are fewer: rows that are not there would count for the cap."""
    rows = family.real(width, num, random)
    if family.count(rows) < num:
        raise UserError(
            f"generation {generation}: {num:,} real rows are asked for and there are {family.count(rows):,}"
        )
    return rows


def block_width(family: type[ChainFamily], gates: Sequence[Any]) -> int:
    """Chains in a block: 1 with gates, because gates keep other rows in every chain."""
    return 1 if gates else family.block


def num_to_make(after: Regime, generation: int, n: int, gates: Sequence[Any]) -> int:
    """Rows that the model of a generation is asked for: as many as the next generation has, whatever share of them its
    regime takes, so that regimes have them in common. Gates count what was asked for, so with them just that share."""
    return after.num_made(generation, n) if gates else after.num_rows(generation + 1, n)


def made_before(after: Regime, generation: int) -> list[Source]:
    """What earlier models made that the next generation may train on beside this one's rows."""
    own = Source(SYNTHETIC, generation)
    return [s for s in after.batches(generation + 1) if s.origin == SYNTHETIC and s != own]


def passed(
    family: ChainFamily,
    model: Any,
    after: Regime,
    generation: int,
    n: int,
    tally: Tally,
    pool: Pool,
    random: Callable[[int], np.random.Generator],
) -> tuple[Any, int, Any]:
    """(rows made, how many, those for the pool). With gates and shortfall = "resample" the model is asked again until
    as many have passed as are wanted, up to MAX_TRIES times."""
    sampling, gating = random(SAMPLE), random(GATE)
    wanted, num = after.num_made(generation, n), num_to_make(after, generation, n, tally.gates)
    made = family.sample(model, num, sampling)
    num_made = family.count(made)
    if not tally.gates:
        return made, num_made, family.cut(made, wanted)
    parts: list[Any] = []

    def past() -> list[Any]:
        return [*map(pool.get, made_before(after, generation)), *parts]

    parts.append(tally.through(made, gating, past))
    for _ in range(MAX_TRIES - 1 if after.shortfall == "resample" else 0):
        if sum(map(family.count, parts)) >= wanted:
            break
        more = family.sample(model, num, sampling)
        parts.append(tally.through(more, gating, past))
        num_made += family.count(more)
    return made, num_made, family.cut(family.joined(parts), wanted)


def regimes(first: Regime, forks: Sequence[Fork]) -> RegimeAt:
    """Which regime holds in a generation."""
    ordered = sorted(forks, key=lambda f: f.at)

    def at(generation: int) -> Regime:
        held = first
        for fork in ordered:
            if fork.at <= generation:
                held = fork.regime
        return held

    return at


def facts_of(outcome: Outcome) -> Mapping[str, Any]:
    """What is told of a generation beside its measures."""
    told = {"num_new": outcome.num_new, "num_made": outcome.num_made, "num_kept": outcome.num_kept}
    return {**outcome.mixture.facts(), **told}
