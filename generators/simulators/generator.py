"""`kind = "simulator"`: one episode or picture a row, its parameters drawn from their ranges by the row's own seed.

An ask may fix parameters: `{"delay": 2}`. An ask without any, `{}`, draws them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.generators.contract import GeneratedRow, Generator, fields_of, fill
from gristmill.generators.simulators.contract import Ranges, Simulator, drawn, ranged
from gristmill.records.errors import UserError
from gristmill.records.kinds import Kinds, kind_class
from gristmill.records.schema import ASK, REJECT
from gristmill.records.spec import build, literals, nearest

KINDS: Kinds = {
    "cartpole": ("gristmill.generators.simulators.cartpole", "CartPole"),
    "scene": ("gristmill.generators.simulators.scene", "Scene"),
}


@dataclass(frozen=True)
class SimulatorSpec:
    """Which simulator, its own settings, and what its parameters may be (static randomization)."""

    simulator: str
    settings: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, tuple[float, ...]] = field(default_factory=dict)  # delay = [0, 3], light = [1]
    given: tuple[str, ...] | None = None  # columns of the source that fix parameters; default: all, which must be known
    # The rest changes no row.
    pooled: bool = False  # in actors of its own; false: in the tasks that carry lots through the stages
    num_cpus: float = 1.0


class Simulated(Generator):
    """Runs an episode for each ask; the row holds the parameters, what was seen and done, and the labels."""

    kind: ClassVar[str] = "simulator"
    Spec: ClassVar[type] = SimulatorSpec

    def __init__(self, spec: SimulatorSpec) -> None:
        self.spec = spec
        made: type[Simulator] = kind_class(KINDS, spec.simulator, "simulator", Simulator)
        self.world = made(build(made.Spec, spec.settings, "generator.settings"))
        ranges: Ranges = spec.ranges
        self.parameters = ranged(made.parameters, ranges)
        self._num_made = 0
        names = [p.name for p in self.parameters]
        for name in spec.given or ():
            if name not in names:
                raise UserError(f"generator.given: no parameter '{name}'{nearest(name, names)}")

    @property
    def payload(self) -> list[pa.Field]:
        numbers = [pa.field(p.name, pa.int64() if p.is_whole else pa.float64()) for p in self.parameters]
        return [*numbers, *self.world.fields]

    @property
    def model(self) -> str | None:
        return self.spec.simulator

    @property
    def needs(self) -> Needs:
        return Needs(self.spec.num_cpus, pooled=self.spec.pooled)

    def fields_read(self) -> list[str]:
        return list(self.spec.given or ())

    def identity(self) -> dict[str, Any]:
        return {
            "simulator": self.spec.simulator,
            "settings": literals(self.world.spec),
            "ranges": {p.name: [p.low, p.high] for p in self.parameters},
            "given": list(self.spec.given or []),
        }

    @property
    def progress(self) -> tuple[int, int]:
        return self._num_made, 0

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        dead = asks.column(REJECT.name).is_valid().to_pylist()
        texts, seeds = asks.column(ASK.name).to_pylist(), asks.column("seed").to_pylist()
        made = [None if is_dead else self._one(text, seed) for is_dead, text, seed in zip(dead, texts, seeds)]
        self._num_made += len(made) - sum(dead)
        return fill(asks, self.payload, made)

    def _one(self, text: str | None, seed: int) -> GeneratedRow:
        given, reason = self._given(text)
        if reason:
            return GeneratedRow(reason=reason)
        draw = np.random.Generator(np.random.Philox(key=seed))
        row = self.world.episode(drawn(self.parameters, draw, given), draw)
        whole = {p.name: int(row[p.name]) for p in self.parameters if p.is_whole}
        return GeneratedRow({**row, **whole}, "stop")

    def _given(self, text: str | None) -> tuple[Mapping[str, float], str | None]:
        """(parameters that an ask fixes, null) or ({}, why it cannot be)."""
        fields = fields_of(text, self.spec.given)
        if fields is None:
            return {}, "malformed_ask"
        ranges = {p.name: p for p in self.parameters}
        for name, value in fields.items():
            if name not in ranges:
                return {}, "unknown_parameter"
            if value is None:
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not ranges[name].low <= value <= ranges[name].high:
                return {}, "impossible_value"
        return {name: float(value) for name, value in fields.items() if value is not None}, None
