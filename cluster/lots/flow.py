"""Decides whether a further lot may start: what the plan, the limits, the memory and the later steps allow."""

import time
from collections import defaultdict
from collections.abc import Sequence

from gristmill.cluster.budget import Budget
from gristmill.cluster.lots.in_flight import InFlightLot, Step
from gristmill.cluster.lots.job import Job
from gristmill.cluster.lots.stage_cpus import StageCpus
from gristmill.cluster.pools.pool import Pool
from gristmill.records.output.shards import Summary

MEMORY_SHARE = 0.5  # of the cluster's object stores, for uncommitted rows; beyond the whole, Ray spills to disk
LOTS_PER_CPU = 3  # in the hands of CPU workers
LEAST_BEHIND = 32  # lots that may wait for a later step, so that its pauses do not stop the engines
BEHIND_PER_ENGINE = 4
MAX_IN_COMMIT, MAX_COMMIT_BYTES = 64, 512 * 2**20  # encoded lots, which are in the memory of the driver


class Flow:
    """Knows the uncommitted lots and their bytes. `store_bytes`: memory of the cluster's object stores."""

    def __init__(self, job: Job, route: Sequence[Step], budget: Budget, cpus: StageCpus) -> None:
        self.job, self.route, self.budget, self.cpus = job, route, budget, cpus
        self.store_bytes = 0.0
        self.num_rows = 0  # of lots whose verdicts are not known yet
        self._nbytes: dict[int, int] = {}  # of uncommitted lots, 0 until their rows are made
        self._num_sized = self._sum_nbytes = 0
        # Seconds in which the generator's engines wanted lots and got none, by what held the lots back.
        self.waits_s: dict[str, float] = defaultdict(float)
        self._counted = time.monotonic()

    def begin(self, lot: InFlightLot) -> None:
        self._nbytes[lot.number] = 0
        self.num_rows += lot.num_rows

    def size(self, lot: InFlightLot, nbytes: int) -> None:
        """Note the bytes of the rows of a lot."""
        before, self._nbytes[lot.number] = self._nbytes[lot.number], nbytes
        self._num_sized += (nbytes > 0) - (before > 0)
        self._sum_nbytes += nbytes - before

    def judged(self, lot: InFlightLot) -> None:
        """Note that the rows of a lot are counted in the totals."""
        self.num_rows -= lot.num_rows

    def committed(self, number: int) -> None:
        nbytes = self._nbytes.pop(number)
        self._num_sized -= nbytes > 0
        self._sum_nbytes -= nbytes

    @property
    def num_lots(self) -> int:
        """Uncommitted lots."""
        return len(self._nbytes)

    @property
    def mean_nbytes(self) -> float:
        """Of the uncommitted lots whose rows are made."""
        return self._sum_nbytes / self._num_sized if self._num_sized else 0.0

    @property
    def nbytes(self) -> float:
        """Of all uncommitted lots, about."""
        return self.mean_nbytes * self.num_lots

    @property
    def max_nbytes(self) -> float:
        """The largest size of uncommitted rows; infinite until the cluster is known."""
        if self.job.spec.window_mb is not None:
            return self.job.spec.window_mb * 1e6
        return MEMORY_SHARE * self.store_bytes or float("inf")

    @property
    def max_in_commit(self) -> int:
        """Number of lots from the claim to the commit."""
        by_memory = MAX_COMMIT_BYTES / self.mean_nbytes if self.mean_nbytes else MAX_IN_COMMIT
        return int(max(2, min(MAX_IN_COMMIT, by_memory)))

    @property
    def max_on_cpus(self) -> int:
        """Number of lots that CPU workers process or will process next."""
        return LOTS_PER_CPU * (self.cpus.num_cpus + 1)

    def closed(self, number: int, num_committed: int, submitted: Summary, waiting: Sequence[int]) -> str | None:
        """Why lot `number` may not start yet; None if it may.

        submitted: totals of the lots that are committed or in commit. waiting: lots that wait for each step.
        """
        plan, window = self.job.plan, self.job.spec.window
        if plan.num_lots is not None and number >= plan.num_lots:
            return "asks"
        if not self.job.has_rows(number):
            return "source"
        if not plan.is_ready(number, num_committed):
            return "round"
        if self.budget.closing:
            return "budget"
        if not self.num_lots:
            return None  # whatever the estimates say, the run goes on
        if window is not None and self.num_lots >= window:
            return "window"
        if self.nbytes >= self.max_nbytes:
            return "memory"
        for step, num_waiting in zip(self.route, waiting):
            if self._is_behind(step, num_waiting):
                return "generators" if step.makes else "stages"
        return "limits" if self._is_enough(submitted) else None

    def count_wait(self, reason: str | None, pools: Sequence[Pool]) -> None:
        """Note why the engines of the generators' pools that want lots get none, since the last call."""
        now = time.monotonic()
        seconds = (now - self._counted) / max(1, sum(pool.num_open for pool in pools))
        for pool in pools:
            if reason:
                self.waits_s[reason] += seconds * pool.feeder.num_hungry
            if pool.feeder.num_bounded:
                self.waits_s["lots_per_replica"] += seconds * pool.feeder.num_bounded
        self._counted = now

    def _is_behind(self, step: Step, num_waiting: int) -> bool:
        width = BEHIND_PER_ENGINE * step.pool.width if step.pool else LOTS_PER_CPU * self.cpus.num_cpus
        return num_waiting >= max(LEAST_BEHIND, width)

    def _is_enough(self, submitted: Summary) -> bool:
        """Whether the lots in flight will reach a limit, if they fare like those before."""
        limits = self.job.limits
        for limit, done, first in (
            (limits.kept_rows, submitted.kept, 1.0),
            (limits.kept_tokens, submitted.kept_tokens, 0.0),
            (limits.tokens, submitted.tokens_out, 0.0),
        ):
            per_ask = done / submitted.asks if submitted.asks else first
            if limit is not None and done + per_ask * self.num_rows >= limit:
                return True
        return False
