"""`kind = "simulator"`: an episode or picture in each row, with parameters drawn from their ranges by the row's seed.

An ask may fix parameters: `{"delay": 2}`. The ask `{}` draws them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.generators.contract import GeneratedRow, Generator, fields_of, fill
from gristmill.generators.simulators.contract import Ranges, Simulator, draw_parameters, with_ranges
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
    """Settings of `simulator`: which one, its own settings, and the ranges of its parameters."""

    simulator: str  # kind of the simulator: cartpole or scene
    settings: dict[str, Any] = field(default_factory=dict)  # settings of the simulator itself
    # range of a parameter, e.g. delay = [0, 3], or its fixed value, light = [1]; default: the simulator's
    ranges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    # source columns that fix parameters; default: all, and each must be a parameter
    conditions: tuple[str, ...] | None = None
    pooled: bool = False  # run in actors of its own; false: in the tasks that carry lots through the stages
    num_cpus: float = 1.0  # CPUs of a replica


class SimulatorGenerator(Generator):
    """Runs an episode for each ask; the row has its parameters, observations, actions and labels."""

    kind: ClassVar[str] = "simulator"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = SimulatorSpec

    def __init__(self, spec: SimulatorSpec) -> None:
        self.spec = spec
        simulator: type[Simulator] = kind_class(KINDS, spec.simulator, "simulator", Simulator)
        self.world = simulator(build(simulator.Spec, spec.settings, "generator.settings"))
        ranges: Ranges = spec.ranges
        self.parameters = with_ranges(simulator.parameters, ranges)
        self._num_rows = 0
        names = [p.name for p in self.parameters]
        for name in spec.conditions or ():
            if name not in names:
                raise UserError(f"generator.conditions: no parameter '{name}'{nearest(name, names)}")

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
        return list(self.spec.conditions or ())

    def identity(self) -> dict[str, Any]:
        return {
            **super().identity(),
            "simulator": self.spec.simulator,
            "settings": literals(self.world.spec),
            "ranges": {p.name: [p.low, p.high] for p in self.parameters},
            "conditions": list(self.spec.conditions or []),
        }

    @property
    def progress(self) -> tuple[int, int]:
        return self._num_rows, 0

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        dead = asks.column(REJECT.name).is_valid().to_pylist()
        texts, seeds = asks.column(ASK.name).to_pylist(), asks.column("seed").to_pylist()
        rows = [None if is_dead else self._one(text, seed) for is_dead, text, seed in zip(dead, texts, seeds)]
        self._num_rows += len(rows) - sum(dead)
        return fill(asks, self.payload, rows)

    def _one(self, text: str | None, seed: int) -> GeneratedRow:
        fixed_values, reason = self._fixed_parameters(text)
        if reason:
            return GeneratedRow(reason=reason)
        draw = np.random.Generator(np.random.Philox(key=seed))
        row = self.world.episode(draw_parameters(self.parameters, draw, fixed_values), draw)
        whole = {p.name: int(row[p.name]) for p in self.parameters if p.is_whole}
        return GeneratedRow({**row, **whole}, "stop")

    def _fixed_parameters(self, text: str | None) -> tuple[Mapping[str, float], str | None]:
        """(parameters that an ask fixes, null), or ({}, the reason why they are impossible)."""
        fields = fields_of(text, self.spec.conditions)
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
