"""Cells of a study and their units of work. The key of a unit covers everything that decides its bytes.

A unit is a span of generations of one block of chains: all generations for light families, one for heavy families. Its
key covers family, revision, rows, gates, seed, block and the regimes so far, and nothing else. So chains that begin
alike share their first units, across cells and studies of one output, and a fork shares everything before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gristmill.generators.chains.contract import NO_CONTEXT, ChainContext, ChainFamily
from gristmill.generators.chains.gates.gate import identities
from gristmill.generators.chains.loop import Fork, RegimeAt, block_width, earlier_sources, regimes, sample_size
from gristmill.generators.chains.registry import chain_class
from gristmill.records.ids import fingerprint
from gristmill.records.masking.masks import covered
from gristmill.records.mixing.regimes import Regime
from gristmill.records.pins import Pins
from gristmill.records.plugins import PluginClasses, source_identity
from gristmill.records.spec import build, literals

FORMAT = 3  # raise it when the loop gives other bytes for the same literals


@dataclass(frozen=True)
class Cell:
    """One setting of a study, which its chains share."""

    name: str
    kind: str
    spec: dict[str, Any]  # spec of the family
    regime_name: str
    regime: Regime
    n: int
    generations: int
    chains: int
    seed: int
    forks: tuple[Fork, ...] = ()
    gates: tuple[dict[str, Any], ...] = ()
    varied: dict[str, Any] = field(default_factory=dict)  # grid values by address
    threads: int = 1  # CPU threads of a unit
    plugins: PluginClasses = field(default_factory=PluginClasses, compare=False, repr=False)
    pins: Pins | None = field(default=None, compare=False, repr=False)  # the inputs, as the driver has read them

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
        """The keys of generations 1, 2, ... of a block."""
        at, keys = self.regime_at, []
        family = self.family()
        with (self.pins or Pins()).active():
            identity, gate_identities = family.identity(), identities(self.gates)
        decides = [
            family.revision,
            literals(family.spec),
            identity,
            source_identity(family),
            self.threads,
            gate_identities,
        ]
        key: Any = [FORMAT, self.kind, *covered(decides), self.n, self.seed, block, self.width]
        for generation in range(1, self.generations + 1):
            regime, after = literals(at(generation)) if generation > 1 else None, at(generation + 1)
            samples = [sample_size(after, generation, self.n, self.gates)]
            if self.gates:  # the rows that gates keep depend on the number of samples and on earlier rows
                samples += [after.shortfall == "resample", *(s.generation for s in earlier_sources(after, generation))]
            key = fingerprint([key, regime, *samples])
            keys.append(key)
        return keys

    def units(self) -> Iterator["Unit"]:
        """All units, each after the unit that it needs."""
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
    """Generations `first` .. `last` of a block. `keys` holds the keys of all generations of the block."""

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
        """The key of the unit that must be done first; None for the first unit of a block."""
        return self.keys[self.first - 2] if self.first > 1 else None

    @property
    def left(self) -> int:
        """Number of generations from here to the end of the chain. The longest remaining chain runs first."""
        return self.cell.generations - self.first + 1
