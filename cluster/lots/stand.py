"""The standing of a run on its cluster while it goes on: its reserved cores, what it may hold, what it reports."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from gristmill.cluster.errors import RunFailed
from gristmill.cluster.lots.job import Job
from gristmill.cluster.lots.stage_cpus import StageCpus
from gristmill.cluster.pools.pool import Pool
from gristmill.cluster.room.lane import StageLane
from gristmill.cluster.room.runs import RunReport
from gristmill.records.output.summary import Summary

logger = logging.getLogger(__name__)

TICK_S = 0.05
SAY_S = 15.0  # a wait for cores is logged after this time


class Stand:
    """Keeps the cores of the stages and the place in the queue of runs up to date. Has no lane on a private Ray."""

    def __init__(self, job: Job, pools: Sequence[Pool]) -> None:
        self.spec, self.seat, self.pools = job.spec, job.seat, pools
        self.lane = StageLane(job.spec.stage_cpus) if job.seat.is_shared else None
        self._why = ""
        self._has_told = False

    @property
    def options(self) -> dict[str, Any]:
        """Options of a task on a reserved core."""
        return self.lane.options if self.lane else {}

    def start(self, is_stopped: Callable[[], bool]) -> None:
        """Get the cores before any engine starts: engines without them would hold a cluster that does nothing.

        Raises RunFailed when there is no room within `cluster.wait_s` or `cluster.nodes_timeout_s`.
        """
        if self.lane is None:
            return
        self.lane.start(self.seat.grant.lane)
        while not is_stopped():
            self.lane.poll(self.seat.grant.lane)
            if self.lane.nodes:
                return
            self._watch_lane(max(self.spec.wait_s, self.spec.nodes_timeout_s))
            time.sleep(TICK_S)

    def poll(self, totals: Summary, cpus: StageCpus) -> None:
        """Exchange the report of the run for what it may hold now. Raises RunFailed when its cores do not come back."""
        if self.lane:
            self.lane.poll(self.seat.grant.lane)
            self._watch_lane(self.spec.stall_timeout_s)

        def report() -> RunReport:
            nodes = {pool.name: pool.fleet.nodes() for pool in self.pools}
            words = f"{totals.kept:,} rows kept, {totals.num_lots:,} lots"
            return RunReport(True, nodes, self.lane.nodes if self.lane else (), cpus.num_tasks, words)

        self.seat.poll(report, sum(len(pool.members) for pool in self.pools))
        cpus.num_spare = self.seat.grant.spare_cpus
        if self.seat.grant.why != self._why:
            self._why = self.seat.grant.why
            logger.info(self._why or "the engines of this run have their room again")

    def _watch_lane(self, limit_s: float) -> None:
        """Log a long wait for cores, and end the run after `limit_s` seconds of it."""
        assert self.lane is not None
        waits_s = self.lane.waits_s
        words = f"its {self.lane.num_cpus} CPU core(s) for the stages (cluster.stage_cpus)"
        if waits_s > limit_s:
            raise RunFailed(
                f"the run waited {waits_s:.0f} s for {words}, and other programs hold all cores of the cluster; see "
                f"`gristmill queue` and `ray status`, stop what holds them, and run the same command again"
            )
        if waits_s > SAY_S and not self._has_told:
            logger.warning(f"the run waits for {words}; other programs hold all cores of the cluster")
        self._has_told = waits_s > SAY_S

    def stop(self) -> None:
        if self.lane:
            self.lane.stop()
