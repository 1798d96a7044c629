"""`adr`: a policy for cartpole, trained in ranges that grow with it; rows are episodes in those ranges.

The policy is linear and improved by the cross-entropy method (Rubinstein & Kroese 2004; Szita & Lorincz 2006, whose
floor under the spread keeps it from settling while the ranges still grow). It learns from no rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, State, stream
from gristmill.generators.private.account import Account
from gristmill.generators.simulators import cartpole
from gristmill.generators.simulators.adr import Adr, AdrSpec
from gristmill.generators.simulators.contract import Parameter, draw_parameters, with_ranges
from gristmill.records.readers.tables import Column, TableSchema

INIT = 1 << 32  # key of the stream of the first policy, beyond all steps


@dataclass(frozen=True)
class AdrFamilySpec:
    """Settings of `adr`."""

    steps: int = 150  # training steps of the policy; each also measures it at the ends of the ranges
    # `adr` grows the ranges, `static` uses all that is allowed, `none` stays at the centre
    randomize: Literal["adr", "static", "none"] = "adr"
    # allowed range of parameters, e.g. {delay = [0, 4]}; default: the simulator's
    ranges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    adr: AdrSpec = field(default_factory=AdrSpec)  # how the ranges grow
    measured: int = 64  # episodes in a step that measure the policy
    population: int = 32  # policies tried in a step
    episodes: int = 8  # episodes in which each policy is tried, in the same worlds
    elite: float = 0.2  # share of the policies that the next ones are modelled on
    spread_floor: float = 0.05  # least standard deviation of each weight
    max_steps: int = 200  # steps of an episode at most; performance is the share of them that the pole stays up

    def __post_init__(self) -> None:
        if min(self.steps, self.measured, self.population, self.episodes, self.max_steps) < 1:
            raise ValueError("steps, measured, population, episodes and max_steps must be at least 1")
        if not 0 < self.elite <= 1 or self.spread_floor < 0:
            raise ValueError("elite must lie in 0 to 1, and spread_floor must not be negative")


class AdrFamily(Family):
    """Trains a policy in a simulator whose ranges it widens; the model holds both."""

    kind: ClassVar[str] = "adr"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = AdrFamilySpec
    block: ClassVar[int] = 64
    min_rows: ClassVar[int] = 0
    needs_rows: ClassVar[bool] = False

    @classmethod
    def own_schema(cls, spec: Any) -> TableSchema:
        """The parameters, an episode's series and its labels. Raises UserError for invalid ranges."""
        parameters = allowed_parameters(spec)
        columns = [Column(p.name, "integer" if p.is_whole else "numeric", p.low, p.high) for p in parameters]
        columns += [Column(name, "series") for name in (*cartpole.STATE, "push")]
        columns += [Column("end", "category", categories=cartpole.ENDS), Column("num_steps", "integer", 1)]
        return TableSchema(tuple(columns))

    @property
    def num_steps(self) -> int:
        return int(self.spec.steps)

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        self._seed = seed
        self._adr = self._new_adr()
        self._mean, self._spread = np.zeros(cartpole.NUM_FEATURES), np.ones(cartpole.NUM_FEATURES)

    def _new_adr(self) -> Adr:
        parameters, spec = allowed_parameters(self.spec), self.spec
        adr = Adr(parameters, spec.adr)
        if spec.randomize != "adr":
            centres = np.array([[p.centre, p.centre] for p in parameters])
            adr.ranges = adr.limits.copy() if spec.randomize == "static" else centres
        return adr

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        performances = [self._step(step) for step in range(start, stop)]
        losses = {"performance": float(np.mean(performances))}
        return {**losses, "entropy": self._adr.entropy} if self.spec.randomize == "adr" else losses

    def _step(self, step: int) -> float:
        """Try a population in worlds of the current ranges, then measure the mean policy; the ranges may move."""
        spec, draw = self.spec, stream(self._seed, step)
        policies = self._mean + self._spread * draw.standard_normal((spec.population, len(self._mean)))
        worlds, _ = self._adr.draw(spec.episodes, draw)
        starts = draw.uniform(-cartpole.START, cartpole.START, (4, spec.episodes))
        tiled = np.tile(worlds, (spec.population, 1))
        lived = self._run(np.repeat(policies, spec.episodes, 0), tiled, np.tile(starts, spec.population))
        scores = lived.reshape(spec.population, spec.episodes).mean(1)
        best = np.argsort(-scores, kind="stable")[: max(2, round(spec.elite * spec.population))]
        chosen = policies[best] / np.linalg.norm(policies[best], axis=1, keepdims=True)  # a sign does not see length
        self._mean, self._spread = chosen.mean(0), np.maximum(chosen.std(0), spec.spread_floor)
        worlds, ends = self._adr.draw(spec.measured, draw)
        starts = draw.uniform(-cartpole.START, cartpole.START, (4, spec.measured))
        performances = self._run(np.tile(self._mean, (spec.measured, 1)), worlds, starts)
        if spec.randomize == "adr":
            self._adr.record(ends, performances)
        return float(performances.mean())

    def _run(self, policies: np.ndarray, worlds: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Share of the steps that each policy survives in its world: float64 (n,)."""
        worlds_by_name = {
            p.name: np.round(column) if p.is_whole else column for p, column in zip(self._adr.parameters, worlds.T)
        }
        return cartpole.survival_steps(policies, worlds_by_name, starts, self.spec.max_steps) / self.spec.max_steps

    def model_state(self) -> State:
        facts = {"entropy": self._adr.entropy} if self.spec.randomize == "adr" else {}
        ranges = {name: list(ends) for name, ends in self._adr.ranges_by_name().items()}
        return State({"policy": self._mean.copy(), "ranges": self._adr.ranges.copy()}, {**facts, "ranges": ranges})

    def training_state(self) -> State:
        return State({"spread": self._spread.copy(), **{f"adr/{k}": v for k, v in self._adr.state().items()}})

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        self._adr, self._mean = self._new_adr(), np.array(model_state.tensors["policy"])
        self._adr.ranges = np.array(model_state.tensors["ranges"])
        if training_state:
            self._spread = np.array(training_state.tensors["spread"])
            self._adr.restore(
                {k.removeprefix("adr/"): v for k, v in training_state.tensors.items() if k.startswith("adr/")}
            )

    @property
    def policy(self) -> tuple[float, ...]:
        """The weights, in the order of `cartpole`."""
        return tuple(self._mean.tolist())

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        world = cartpole.CartPole(cartpole.CartPoleSpec(weights=self.policy, max_steps=self.spec.max_steps))
        parameters = with_ranges(self._adr.parameters, self._adr.ranges_by_name())
        names = {p.name for p in parameters}
        rows, reasons = [], []
        for conditions, seed in zip(requests, seeds):
            row_draw = np.random.Generator(np.random.Philox(key=int(seed)))
            row = world.episode(
                draw_parameters(parameters, row_draw, {k: v for k, v in conditions.items() if k in names}), row_draw
            )
            rows.append(row)
            is_met = all(row[k] == v for k, v in conditions.items())
            reasons.append(None if is_met else "outcome_not_met")
        columns = {}
        for column in self.schema.columns:
            values = [row[column.name] for row in rows]
            columns[column.name] = pa.array(
                [int(v) for v in values] if column.kind == "integer" else values, column.field.type
            )
        return SampleBlock(columns, reasons)


def allowed_parameters(spec: AdrFamilySpec) -> tuple[Parameter, ...]:
    """The parameters within what the spec allows. Raises UserError for what the simulator cannot do."""
    return with_ranges(cartpole.PARAMETERS, spec.ranges)
