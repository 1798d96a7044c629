"""A lot between its start and its commit, and the steps of its route."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.cluster.lots.quarantine import Quarantine
from gristmill.cluster.lots.work import LotPipeline, LotResult
from gristmill.cluster.pools.member import Member
from gristmill.cluster.pools.pool import Pool
from gristmill.records.output.shards import Encoded
from gristmill.stages.admission.contract import LotVerdicts

MAKING = "making"
READY_PHASES = frozenset({"ready", "finishing", "finished", "committing"})  # processed; only its turn is outstanding


@dataclass(frozen=True)
class Step:
    """One step of a lot's route: through a pool, or through a segment of stages on a CPU worker."""

    name: str  # "making", "processing", or the name of the pooled stage
    pool: Pool | None = None
    segment: int = 0

    @property
    def makes(self) -> bool:
        """Whether it is the step of a generator's pool."""
        return self.name == MAKING and self.pool is not None


def route(pipeline: LotPipeline, pools: Sequence[Pool], num_generators: int) -> list[Step]:
    """The steps from asks to the claim: first the generators' pools, which are the first of `pools`.

    A lot passes the generators' pools in a ring, from any of them on. The last step is always a segment, which makes
    the result for the claim.
    """
    by_name = {pool.name: pool for pool in pools}
    steps = [Step(MAKING, pool) for pool in pools[:num_generators]]
    segments = pipeline.segments
    names = [stage.name for stage in pipeline.stages if stage.name in pipeline.pooled]
    for number, stages in enumerate(segments):
        is_last = number == len(segments) - 1
        if stages or is_last or (number == 0 and pipeline.generator is not None):
            steps.append(Step("processing", None, number))
        if not is_last:
            steps.append(Step(names[number], by_name[names[number]]))
    return steps


@dataclass
class InFlightLot:
    """A lot between its start and its commit: waiting for room, running a step, ready to claim, finishing, finished."""

    number: int
    num_rows: int
    step: int = 0
    first: int = 0  # its first step
    phase: str = "waiting"
    tries: int = 0  # workers lost under it
    suspicion: int = 0  # engines lost under it that its asks may have killed
    was_beside_others: bool = False  # whether the last of them had other lots, too
    ref: Any = None  # the running call, whose future signals its end
    asks_ref: Any = None  # reference to the asks, or the asks themselves if they are small
    input_ref: Any = None  # input of the step
    output_ref: Any = None  # output of the step
    twin: tuple[Any, Any] | None = None  # ref and output_ref of the same task, started again elsewhere
    member: Member | None = None
    quarantine: Quarantine | None = None
    result: LotResult | None = None
    verdicts: LotVerdicts | None = None
    encoded: Encoded | None = None
    replica: int | None = None  # number of the engine that generated its rows
    node: str | None = None
    times: dict[str, float] = field(default_factory=dict)  # monotonic seconds of its birth and of each end of a step

    def mark(self, event: str) -> None:
        self.times[event] = time.monotonic()

    def literals(self, began: float) -> dict[str, Any]:
        """Engine and node of its rows, number of losses, and the seconds after `began` of each event."""
        seconds = {f"{event}_s": round(when - began, 3) for event, when in self.times.items()}
        return {"replica": self.replica, "node": self.node, "tries": self.tries, **seconds}

    def swap_twins(self) -> None:
        """Take the other of two equal tasks for the first."""
        assert self.twin is not None
        before = self.ref, self.output_ref
        (self.ref, self.output_ref), self.twin = self.twin, before

    def advance(self, steps: Sequence[Step]) -> None:
        """Go on to the next step: the next generator's pool until every one had the lot, then the rest of the route."""
        num_generators = sum(step.makes for step in steps)
        self.step += 1
        if self.step <= num_generators:
            self.step %= num_generators
            self.step = num_generators if self.step == self.first else self.step

    def begin_again(self) -> None:
        """Go back to the asks, which have the same ids and seeds."""
        self.step, self.phase, self.suspicion = self.first, "waiting", 0
        self.input_ref = self.asks_ref
        self.ref = self.twin = self.output_ref = self.member = self.quarantine = self.result = self.verdicts = (
            self.encoded
        ) = None
