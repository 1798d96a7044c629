"""The queue of the runs of a cluster: who waits, who holds what, and what each is granted.

The queue itself knows nothing of Ray; gristmill.cluster.room.seat keeps it in an actor on a shared cluster.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from gristmill.cluster.room.nodes import Resources
from gristmill.cluster.room.runs import Grant, QueuedRun, RunReport, RunRequest
from gristmill.cluster.room.shares import CORE, Division

LOOK_S = 2.0  # between two looks at the cluster
DIVISION_SHARE = 10.0  # times the duration of a division pass before the next
SETTLE_S = 60.0  # from a grant, or from free cores, to the report of the node of an engine
NODES_PER_S = 2000  # nodes that are looked at in a second, so that large clusters are looked at less often


class RunQueue:
    """`look` returns the usable nodes and what is in use of them; `dead_jobs` the ids of Ray jobs that have ended."""

    def __init__(
        self,
        look: Callable[[], tuple[Mapping[str, Resources], Mapping[str, Resources]]],
        dead_jobs: Callable[[], Iterable[str]],
    ) -> None:
        self._look, self._dead_jobs = look, dead_jobs
        self.runs: dict[tuple[str, str], QueuedRun] = {}
        self.quotas: dict[str, float] = {}
        self._warm: dict[str, list[tuple[str, Mapping[str, float]]]] = {}  # (node, resources) by job
        self._arrivals = 0
        self._looked = float("-inf")
        self._nodes: Mapping[str, Resources] = {}
        self._foreign_before: dict[str, Resources] = {}
        self._is_stale = False
        self._divided, self._division_s = float("-inf"), 0.0  # when the last division ended, and how long it took
        self._free: Mapping[str, Resources] = {}  # what nobody uses of the nodes
        self._starves_since: float | None = None  # when tasks were first seen on the cores of an engine that waits

    def join(self, request: RunRequest, job: str) -> QueuedRun:
        """Enter a run, or change its request."""
        run = self.runs.get((request.run, job))
        if run is None:
            self._arrivals += 1
            run = self.runs[request.run, job] = QueuedRun(request, job, self._arrivals, time.time())
        run.request, self._is_stale = request, True
        return run

    def leave(self, run: str, job: str, warm: Sequence[tuple[str, Mapping[str, float]]] = ()) -> None:
        """Remove a run of this job. `warm`: its engines that wait for the next run of the job."""
        self._is_stale |= self.runs.pop((run, job), None) is not None
        self._warm[job] = list(warm)

    def sync(self, request: RunRequest, job: str, report: RunReport) -> Grant:
        """Take the report of a run and return what it may hold. A run that is unknown, e.g. after a restart, joins."""
        run = self.runs.get((request.run, job))
        if run is None or run.request != request:
            run = self.join(request, job)
        is_same = replace(run.report, progress="", num_tasks=0) == replace(report, progress="", num_tasks=0)
        self._is_stale |= not is_same
        run.report = report
        if report.is_admitted:
            self._warm.pop(job, None)  # it has taken them over, and reports them
        self.divide()
        return run.grant

    def divide(self) -> None:
        """Divide the room again, if the cluster or a run has changed or some time has passed."""
        now = time.monotonic()
        if now - self._looked > max(LOOK_S, len(self._nodes) / NODES_PER_S):
            self._remove_dead()
            nodes, used = self._look()
            self._nodes = self._without_foreign(nodes, used)
            self._free = {
                node: {name: amount - used.get(node, {}).get(name, 0.0) for name, amount in resources.items()}
                for node, resources in nodes.items()
            }
            self._looked, self._is_stale = now, True
        if not self._is_stale or now - self._divided < DIVISION_SHARE * self._division_s:
            return
        division = Division(self._nodes, list(self.runs.values()), self.quotas)
        grants = division.grants()
        self._starves_since = (self._starves_since or now) if division.starves(self._free) else None
        if self._starves_since is not None and now - self._starves_since < SETTLE_S:
            grants = {key: replace(grant, spare_cpus=0.0) for key, grant in grants.items()}
        for key, grant in grants.items():
            run = self.runs[key]
            if any(width > run.grant.widths.get(pool, 0) for pool, width in grant.widths.items()):
                run.grew_at = now
            run.grant = grant
            if grant.is_admitted and not run.report.is_admitted:
                run.report = replace(run.report, is_admitted=True)  # its room is its own before it says so
        self._divided = time.monotonic()
        self._division_s, self._is_stale = self._divided - now, False

    def _remove_dead(self) -> None:
        dead = set(self._dead_jobs())
        self._warm = {job: engines for job, engines in self._warm.items() if job not in dead}
        self.runs = {key: run for key, run in self.runs.items() if run.job not in dead}

    def _without_foreign(self, nodes: Mapping[str, Resources], used: Mapping[str, Resources]) -> dict[str, Resources]:
        """`nodes` less what other programs hold there.

        What runs have reported is their own. So is as much as their tasks use on cores that nobody has reserved, and
        for a while their engines that were granted and have not reported a node, wherever that is; always, for pools
        that report no nodes. The rest is held by others; cores only if they are in use at two looks, as tasks come and
        go.
        """
        now = time.monotonic()
        foreign = {node: dict(amounts) for node, amounts in used.items()}
        slack: dict[str, float] = defaultdict(float)
        for engines in self._warm.values():
            for node, bundle in engines:
                _subtract(foreign, node, bundle)
        for run in self.runs.values():
            slack["CPU"] += run.report.num_tasks
            lane = run.report.lane
            if run.grant.is_admitted:
                slack["CPU"] += run.request.stage_cpus - len(lane)
            for node in lane:
                _subtract(foreign, node, CORE)
            for pool in run.request.pools:
                placed = run.report.nodes.get(pool.name, ())
                is_new = now - run.grew_at < SETTLE_S or pool.name not in run.report.nodes
                num_unplaced = max(0, run.grant.widths.get(pool.name, 0) - len(placed)) if is_new else 0
                first, *others = pool.needs.bundles
                for bundle, number in [(first, num_unplaced), *((b, num_unplaced + len(placed)) for b in others)]:
                    for name, amount in bundle.items():  # only the node of the first bundle is reported
                        slack[name] += amount * number
                for node in placed:
                    _subtract(foreign, node, first)
        before, self._foreign_before = self._foreign_before, foreign
        for node, amounts in foreign.items():
            for name, amount in amounts.items():
                growth = max(0.0, amount - before.get(node, {}).get(name, 0.0))
                reserved = min(slack[name], growth)  # what others held before an engine was granted, they still hold
                slack[name] -= reserved
                amounts[name] = max(0.0, amount) - reserved
        foreign = {node: dict(amounts) for node, amounts in foreign.items()}
        for node, amounts in foreign.items():
            amounts["CPU"] = min(amounts.get("CPU", 0.0), before.get(node, {}).get("CPU", 0.0))
        return {
            node: {name: amount - foreign.get(node, {}).get(name, 0.0) for name, amount in resources.items()}
            for node, resources in nodes.items()
        }


def _subtract(foreign: dict[str, Resources], node: str, bundle: Mapping[str, float]) -> None:
    if node in foreign:
        for name, amount in bundle.items():
            foreign[node][name] = foreign[node].get(name, 0.0) - amount
