"""A cell is one setting of a study; its chains are cut into units of work, each named by all that decides its bytes.

A unit is a span of generations of one block of chains: all of them for light families, one for heavy ones. Its key
covers family, rows, gates, seed, block and the regimes up to there, and nothing else: chains that begin alike share
their first units, also across cells and studies in one output, and a fork shares everything before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gristmill.generators.chains.contract import NO_CONTEXT, ChainContext, ChainFamily
from gristmill.generators.chains.gates.gate import identities
from gristmill.generators.chains.loop import Fork, RegimeAt, block_width, made_before, num_to_make, regimes
from gristmill.generators.chains.registry import chain_class
from gristmill.records.ids import fingerprint
from gristmill.records.mixing.regimes import Regime
from gristmill.records.spec import build, literals

FORMAT = 3  # to be raised when the same literals come to give other bytes


@dataclass(frozen=True)
class Cell:
    """What all its chains have in common."""

    name: str
    kind: str
    spec: dict[str, Any]  # of the family
    regime_name: str
    regime: Regime
    n: int
    generations: int
    chains: int
    seed: int
    forks: tuple[Fork, ...] = ()
    gates: tuple[dict[str, Any], ...] = ()
    varied: dict[str, Any] = field(default_factory=dict)  # what the grid says of it
    threads: int = 1  # of its sums

    def family(self, context: ChainContext = NO_CONTEXT) -> ChainFamily:
        """The family with its spec. Raises UserError for a spec that the family rejects."""
        cls = chain_class(self.kind)
        return cls(build(cls.Spec, self.spec, "family"), context)

    @property
    def regime_at(self) -> RegimeAt:
        return regimes(self.regime, self.forks)

    @cached_property
    def width(self) -> int:
        """Chains in a block."""
        return block_width(chain_class(self.kind), self.gates)

    def keys(self, block: int) -> list[str]:
        """What names generation 1, 2, ... of a block."""
        at, found = self.regime_at, []
        family = self.family()
        decides = [family.revision, literals(family.spec), family.identity(), self.threads, identities(self.gates)]
        key: Any = [FORMAT, self.kind, *decides, self.n, self.seed, block, self.width]
        for generation in range(1, self.generations + 1):
            regime, after = literals(at(generation)) if generation > 1 else None, at(generation + 1)
            made = [num_to_make(after, generation, self.n, self.gates)]
            if self.gates:  # what they keep hangs on how often they are asked, and on rows that they look back at
                made += [after.shortfall == "resample", *(s.generation for s in made_before(after, generation))]
            key = fingerprint([key, regime, *made])
            found.append(key)
        return found

    def units(self) -> Iterator["Unit"]:
        """All that is to be done, each after the one that it needs."""
        is_light = chain_class(self.kind).is_light
        for block in range(-(-self.chains // self.width)):
            keys = self.keys(block)
            if is_light:
                yield Unit(self, block, 1, self.generations, tuple(keys))
                continue
            for generation in range(1, self.generations + 1):
                yield Unit(self, block, generation, generation, tuple(keys))


@dataclass(frozen=True)
class Unit:
    """The generations `first` .. `last` of a block; `keys` are those of all generations of the block."""

    cell: Cell
    block: int
    first: int
    last: int
    keys: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.keys[self.last - 1]

    @property
    def needs(self) -> str | None:
        """The key of the unit that must be done before."""
        return self.keys[self.first - 2] if self.first > 1 else None

    @property
    def left(self) -> int:
        """Generations from here to the end of the chain: the longest remaining chain goes first."""
        return self.cell.generations - self.first + 1
