"""A lot between birth and commit, and the steps of its way."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.cluster.lots.quarantine import Quarantine
from gristmill.cluster.lots.work import LotPipeline, LotResult
from gristmill.cluster.pools.member import Member
from gristmill.cluster.pools.pool import Pool
from gristmill.records.shards import Encoded
from gristmill.stages.admission.contract import LotVerdicts

READY_PHASES = ("ready", "finishing", "finished", "committing")  # all that is left is the lot's turn


@dataclass(frozen=True)
class Step:
    """One leg of a lot's way: through a pool, or through a segment of stages on a CPU worker."""

    name: str  # "making", "processing", or the name of the pooled stage
    pool: Pool | None = None
    segment: int = 0


def route(pipeline: LotPipeline, pools: Sequence[Pool], generator_pool: Pool | None) -> list[Step]:
    """The steps from asks to the claim; the last is always a segment, which makes the result for it."""
    by_name = {pool.name: pool for pool in pools}
    steps = [Step("making", generator_pool)] if generator_pool else []
    segments = pipeline.segments
    names = [stage.name for stage in pipeline.stages if stage.name in pipeline.pooled]
    for number, stages in enumerate(segments):
        is_last = number == len(segments) - 1
        if stages or is_last or (number == 0 and not generator_pool):
            steps.append(Step("processing", None, number))
        if not is_last:
            steps.append(Step(names[number], by_name[names[number]]))
    return steps


@dataclass
class InFlightLot:
    """A lot between birth and commit: waiting for room, running a step, ready to claim, finishing, finished."""

    lot: int
    num_rows: int
    step: int = 0
    phase: str = "waiting"
    tries: int = 0  # workers lost under it
    suspicion: int = 0  # engines lost under it that its asks may have killed
    ref: Any = None  # of the running call: what tells that it is done
    asks_ref: Any = None  # or the asks themselves, if they are small
    input_ref: Any = None  # what the step reads
    output_ref: Any = None  # what it makes
    member: Member | None = None
    quarantine: Quarantine | None = None
    result: LotResult | None = None
    claimed: LotVerdicts | None = None
    encoded: Encoded | None = None
    replica: int | None = None  # that made its rows
    node: str | None = None
    times: dict[str, float] = field(default_factory=dict)  # when it was born, made, processed, ... (monotonic)

    def mark(self, what: str) -> None:
        self.times[what] = time.monotonic()

    def literals(self, began: float) -> dict[str, Any]:
        """Where it was made, how often it was lost, and when it got how far, in seconds after `began`."""
        seconds = {f"{what}_s": round(when - began, 3) for what, when in self.times.items()}
        return {"replica": self.replica, "node": self.node, "tries": self.tries, **seconds}

    def begin_again(self) -> None:
        """From its asks, with the same ids and seeds."""
        self.step, self.phase, self.suspicion = 0, "waiting", 0
        self.input_ref = self.asks_ref
        self.ref = self.output_ref = self.member = self.quarantine = self.result = self.claimed = self.encoded = None
