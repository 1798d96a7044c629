"""What a run is given, and what it tells while it goes on."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.cluster.budget import Budget
from gristmill.cluster.lots.in_flight import READY_PHASES, InFlightLot, Step
from gristmill.cluster.lots.work import LotPipeline
from gristmill.cluster.pools.placement import want
from gristmill.cluster.pools.pool import Pool
from gristmill.cluster.pools.replica import StageWorker
from gristmill.cluster.spec import ClusterSpec, Limits
from gristmill.generators.contract import Generator
from gristmill.records.lots import Asked
from gristmill.records.shards import Summary
from gristmill.records.stores.contract import Store

WINDOW_PER_CPU = 3


def _silent(event: str, **values: Any) -> None:
    """Notes nothing."""


@dataclass
class Job:
    """All that a run needs, made by the verbs of `jobs`."""

    pipeline: LotPipeline
    source: Asked
    store: Store
    spec: ClusterSpec
    limits: Limits
    pooled: Generator | None = None  # the generator, when it wants a pool
    totals: Summary = field(default_factory=Summary)  # of the lots committed before
    device_s: float = 0.0  # spent by earlier starts
    cost: float = 0.0
    note: Callable[..., None] = _silent  # one structured line of the log: note("retry", lot=3, stage="making", ...)


def build_pools(job: Job) -> list[Pool]:
    """The generator's pool first, if it wants one, then one for every pooled stage."""
    spec, pipeline = job.spec, job.pipeline
    pools = []
    if job.pooled:
        pools.append(Pool("generator", job.pooled, job.pooled.needs, spec.generator_pool, spec, job.note))
    for worker in (StageWorker(stage) for stage in pipeline.stages if stage.name in pipeline.pooled):
        pools.append(Pool(worker.name, worker, worker.needs, spec.pool(worker.name), spec, job.note))
    for pool in pools:
        pool.others = [other for other in pools if other is not pool]
    return pools


def hint(pools: Sequence[Pool], is_over: bool = False) -> None:
    """Tell an autoscaler how wide the pools may grow, and at the end that nothing more is wanted."""
    if any(p.spec.max_replicas for p in pools):
        want([] if is_over else [(p.needs, p.spec.max_replicas or p.spec.replicas) for p in pools])


def window(spec: ClusterSpec, pools: Sequence[Pool], num_cpus: int) -> int:
    """Lots between birth and commit: enough for every engine and core, unless the recipe says how many."""
    if spec.window:
        return spec.window
    per_cpu = WINDOW_PER_CPU * max(1, num_cpus)
    in_engines = sum(p.width * p.spec.lots_per_replica for p in pools)
    return in_engines + min(in_engines, per_cpu) + WINDOW_PER_CPU if pools else per_cpu


@dataclass
class Progress:
    """What a display may want to know, a few times a second."""

    totals: Summary
    in_flight: dict[str, int]  # lots by phase
    num_engines: int
    num_engines_open: int
    retries: dict[str, int]  # by what was lost under the lot
    busy_s: dict[str, float]  # seconds of CPU workers by stage
    index_bytes: int = 0  # memory of the dedup index
    made_asks: int = 0  # by the engines of this start, lots in flight included; 0 without a pool
    made_tokens: int = 0
    tokens_per_s: float = 0.0  # of the generator's engines
    engine_share: float | None = None  # of the raw speed that cluster.tokens_per_s states
    commit_lag_s: float = 0.0  # how long the oldest lot that is ready to be committed has waited
    device_s: float = 0.0  # over all starts
    cost: float = 0.0
    budget_share: float | None = None

    @property
    def num_retries(self) -> int:
        return sum(self.retries.values())


def beat(
    totals: Summary,
    flights: Iterable[InFlightLot],
    steps: Sequence[Step],
    pools: Sequence[Pool],
    budget: Budget,
    job: Job,
    retries: Mapping[str, int],
    busy_s: Mapping[str, float],
    index_bytes: int,
) -> Progress:
    """The state of a run now."""
    now = time.monotonic()
    in_flight: Counter[str] = Counter()
    oldest = now
    for flight in flights:
        in_flight[steps[flight.step].name if flight.phase == "running" else flight.phase] += 1
        if flight.phase in READY_PHASES:
            oldest = min(oldest, flight.times["processed"])
    made, tokens_per_s, share = (0, 0), 0.0, None
    if job.pooled:
        made, tokens_per_s, num_open = pools[0].made, pools[0].tokens_per_s, pools[0].num_open
        share = tokens_per_s / (job.spec.tokens_per_s * num_open) if job.spec.tokens_per_s and num_open else None
    return Progress(
        totals,
        dict(in_flight),
        sum(len(p.members) for p in pools),
        sum(p.num_open for p in pools),
        dict(retries),
        dict(busy_s),
        index_bytes,
        *made,
        tokens_per_s,
        share,
        now - oldest,
        budget.device_s,
        budget.cost,
        budget.share,
    )
