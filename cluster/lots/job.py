"""The inputs of a run, and its progress."""

import queue
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any

from gristmill.cluster.budget import Budget, Spending
from gristmill.cluster.lots.in_flight import READY_PHASES, InFlightLot, Step
from gristmill.cluster.lots.work import LotPipeline
from gristmill.cluster.pools.feed import Occupancy
from gristmill.cluster.pools.pool import Pool
from gristmill.cluster.pools.replica import StageWorker, Worker
from gristmill.cluster.room.seat import Seat
from gristmill.cluster.spec import ClusterSpec, Limits, PoolSpec
from gristmill.generators.contract import Generator
from gristmill.records.committed import CommittedRows
from gristmill.records.lots import AskSource, Plan
from gristmill.records.output.shards import Summary
from gristmill.records.stores.contract import Store

MAX_LANES = 64  # engines whose occupancy is shown one by one
Events = queue.SimpleQueue[Callable[[], None]]  # what has happened, as functions for the loop to call


def _silent(event: str, **values: Any) -> None:
    """An event log that discards its events."""


@dataclass
class Job:
    """The inputs of a run; the verbs of `jobs` build it."""

    pipeline: LotPipeline
    source: AskSource
    store: Store
    spec: ClusterSpec
    limits: Limits
    seat: Seat  # its place on the cluster
    pooled: Mapping[str, Generator] = field(default_factory=dict)  # the generators that need pools, by pool name
    totals: Summary = field(default_factory=Summary)  # of the lots that earlier starts committed
    device_s: float = 0.0  # device-seconds of earlier starts
    cost: float = 0.0  # of earlier starts, in cluster.currency
    leftovers: Mapping[int, Sequence[str]] = field(default_factory=dict)  # see Committer
    check: Callable[[], None] = lambda: None  # raises UserError when another driver has taken the output
    note: Callable[..., None] = _silent  # writes an event: note("retry", lot=3, stage="making", ...)
    growth: CommittedRows | None = None  # the source, where its run had not ended when this one was compiled
    paid: float = 0.0  # of `cost`: for calls of engines
    paid_per_ask: float = 0.0  # expected money for the calls of an ask, until the engines have shown it
    keeps_answers: bool = False  # whether parts keep answers until their lot is committed
    _whole_plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """The plan as far as it is known: a source that grows states the number of asks at its end."""
        if self.growth is None or not self.growth.is_ended:
            return self.pipeline.plan
        if self._whole_plan is None:
            plan, num_asks = self.pipeline.plan, self.growth.num_asks
            num_asks = num_asks if plan.num_asks is None else min(num_asks, plan.num_asks)
            self._whole_plan = replace(plan, num_asks=num_asks)
        return self._whole_plan

    def has_rows(self, lot: int) -> bool:
        """Whether the source rows of a lot are there."""
        return self.growth is None or self.growth.is_ended or self.plan.span(lot)[1] <= self.growth.num_asks


def build_pools(job: Job, events: Events) -> list[Pool]:
    """The pools of generators, then a pool for every pooled stage. What they report goes to `events`."""
    spec, workers = job.spec, [StageWorker(s) for s in job.pipeline.stages if s.name in job.pipeline.pooled]
    pools = [_pool(job, events, name, worker, spec.generator_pool(name)) for name, worker in job.pooled.items()]
    return pools + [_pool(job, events, worker.name, worker, spec.pool(worker.name)) for worker in workers]


def _pool(job: Job, events: Events, name: str, worker: Worker, spec: PoolSpec) -> Pool:
    allowed = partial(job.seat.width, name)
    return Pool(name, worker, worker.needs, spec, job.spec, job.note, events, allowed)


@dataclass
class Progress:
    """The state of a run, for displays and metrics."""

    totals: Summary
    in_flight: dict[str, int]  # lots by phase
    num_engines: int
    num_engines_open: int
    retries: dict[str, int]  # by what was lost
    busy_s: dict[str, float]  # seconds of CPU workers, by stage
    index_bytes: int = 0  # memory of the dedup index
    made_asks: int = 0  # asks that the engines of this start have finished, lots in flight included; 0 without a pool
    made_tokens: int = 0  # tokens that they have generated
    tokens_per_s: float = 0.0  # of all generator engines
    engine_share: float | None = None  # of the raw speed in cluster.tokens_per_s
    commit_lag_s: float = 0.0  # waiting time of the oldest processed lot
    device_s: float = 0.0  # over all starts
    cost: float = 0.0  # over all starts, in cluster.currency
    paid: float = 0.0  # of `cost`: for calls of engines
    budget_share: float | None = None  # of the tightest budget
    occupancy: dict[str, Occupancy] = field(default_factory=dict)  # of the engines of this start, by pool
    lanes: dict[str, Occupancy] = field(default_factory=dict)  # of the first engines that are open, by pool and number
    waits_s: dict[str, float] = field(default_factory=dict)  # in which engines wanted lots, by what held the lots back
    window_share: float = 0.0  # of the memory for uncommitted rows
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the engines, by pool
    spending: dict[str, Spending] = field(default_factory=dict)  # of this start, by pool

    @property
    def num_retries(self) -> int:
        return sum(self.retries.values())


def measure_progress(
    totals: Summary,
    lots: Sequence[InFlightLot],
    steps: Sequence[Step],
    pools: Sequence[Pool],
    budget: Budget,
    job: Job,
    retries: Mapping[str, int],
    busy_s: Mapping[str, float],
    index_bytes: int,
    waits_s: Mapping[str, float],
    window_share: float,
) -> Progress:
    """The present state of a run. `lots` are those in flight and in commit."""
    now = time.monotonic()
    in_flight: Counter[str] = Counter()
    for (phase, step), number in Counter(map(attrgetter("phase", "step"), lots)).items():
        in_flight[steps[step].name if phase == "running" else phase] += number
    oldest = min((lot.times["processed"] for lot in lots if lot.phase in READY_PHASES), default=now)
    makers = pools[: len(job.pooled)]
    produced = sum(pool.progress[0] for pool in makers), sum(pool.progress[1] for pool in makers)
    tokens_per_s, num_open = sum(pool.token_rate.per_s for pool in makers), sum(pool.num_open for pool in makers)
    share = tokens_per_s / (job.spec.tokens_per_s * num_open) if job.spec.tokens_per_s and num_open else None
    return Progress(
        totals,
        dict(in_flight),
        sum(len(p.members) for p in pools),
        sum(p.num_open for p in pools),
        dict(retries),
        dict(busy_s),
        index_bytes,
        *produced,
        tokens_per_s,
        share,
        now - oldest,
        budget.device_s,
        budget.cost,
        budget.paid,
        budget.share,
        {pool.name: pool.occupancy for pool in pools},
        dict(islice(((f"{pool.name} {m.number}", m.occupancy) for pool in pools for m in pool.members), MAX_LANES)),
        dict(waits_s),
        window_share,
        {pool.name: pool.facts for pool in pools if pool.facts},
        {pool.name: Spending.of(pool) for pool in pools},
    )
