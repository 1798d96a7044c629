"""Divides the room of a cluster among runs: by priority, then in the order of arrival, then by weight.

Each run first gets its CPU cores for stages and its `replicas`, all or none. What is left goes, an engine at a time, to
the run with the fewest devices per unit of `cluster.share`, up to its `max_replicas` (weighted max-min fairness). A run
that waits keeps the room that it would take from all runs behind it, so that small runs cannot overtake it forever.
A run of higher priority is served whole before the others: their engines leave, when they have finished their lots.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from gristmill.cluster.room.capacity import Capacity
from gristmill.cluster.room.runs import Grant, PoolRequest, QueuedRun

Key = tuple[str, str]

CORE = {"CPU": 1.0}
MAX_HOLDERS = 3  # runs that a message names


class Division:
    """One division of the room of `nodes`. `quotas`: the most devices of all runs with a label "key=value"."""

    def __init__(
        self,
        nodes: Mapping[str, Mapping[str, float]],
        runs: Sequence[QueuedRun],
        quotas: Mapping[str, float],
    ) -> None:
        self.nodes, self.quotas = nodes, quotas
        self.runs = sorted(runs, key=lambda r: (-r.request.priority, not r.report.is_admitted, r.arrival))
        self._capacity = Capacity(nodes)
        self._widths: dict[Key, dict[str, int]] = {r.key: {} for r in runs}
        self._fits: dict[tuple[Key, str], int] = defaultdict(int)  # engines of each pool that nodes have room for
        self._lanes: dict[Key, tuple[str, ...]] = {}
        self._used: dict[str, float] = defaultdict(float)  # devices by label
        self._waits: dict[Key, str] = {}  # why it is not admitted

    def grants(self) -> dict[Key, Grant]:
        """What each run may hold, by its key."""
        for run in self.runs:
            for node in run.report.lane:  # its cores are never taken from it: lots in flight end on them
                self._capacity.take([CORE], node)
        for _, peers in groupby(self.runs, key=lambda r: r.request.priority):
            members = list(peers)
            for run in members:
                self._serve(run)
            self._grow([run for run in members if run.key not in self._waits])
        spare = max(0.0, self._capacity.total("CPU"))
        return {run.key: self._grant(run, spare) for run in self.runs}

    def starves(self, free: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether an engine has room but for CPU cores that tasks take in turns. Call it after `grants`.

        `free`: what is not in use of each node.
        """
        for run in self.runs:
            for name, nodes in run.report.nodes.items():
                num_due = self._fits[run.key, name] - len(nodes)
                needs = run.request.pool(name).needs if num_due > 0 else None
                if needs and needs.num_cpus:
                    fits = Capacity(free).take_many(needs, num_due)
                    if fits < Capacity(free).take_many(replace(needs, num_cpus=0.0), num_due):
                        return True
        return False

    # The minimum

    def _serve(self, run: QueuedRun) -> None:
        """Give a run its cores and its `replicas`; a run that is not admitted yet gets all or waits."""
        request, is_new = run.request, not run.report.is_admitted
        if is_new and (quota := self._exceeded(run)):
            self._waits[run.key] = quota
            return
        if is_new and not request.can_grow and not self._fits_alone(run):
            self._waits[run.key] = "its engines do not fit on the nodes that are up"
            return
        has_room = True
        for pool in request.pools:
            most = min(pool.replicas, self._quota_left(run, pool))
            width = self._capacity.take_many(pool.needs, most, run.report.nodes.get(pool.name, ()))
            self._fits[run.key, pool.name] = width
            has_room = has_room and width == pool.replicas
            self._give(run, pool, most if request.can_grow else width)
        has_room = self._place_cores(run) and has_room
        if is_new and not has_room and not request.can_grow:
            self._waits[run.key] = "no room beside the runs before it"

    def _place_cores(self, run: QueuedRun) -> bool:
        """Find nodes for the cores of a run that it does not hold yet; returns whether there is room for all."""
        num_missing = run.request.stage_cpus - len(run.report.lane)
        nodes = [self._capacity.place(CORE) for _ in range(num_missing)]
        self._lanes[run.key] = (*run.report.lane, *(node for node in nodes if node is not None))
        return None not in nodes

    def _fits_alone(self, run: QueuedRun) -> bool:
        empty = Capacity(self.nodes)
        fits = all([empty.take_many(p.needs, p.replicas) == p.replicas for p in run.request.pools])
        return fits and all(empty.take([CORE]) for _ in range(run.request.stage_cpus))

    def _give(self, run: QueuedRun, pool: PoolRequest, number: int) -> None:
        widths = self._widths[run.key]
        widths[pool.name] = widths.get(pool.name, 0) + number
        for label in _labels(run):
            self._used[label] += number * pool.needs.num_devices

    # Growth

    def _grow(self, runs: Iterable[QueuedRun]) -> None:
        """Give the rest to the runs with the fewest devices per unit of share."""
        queue = [(self._ratio(run), run.arrival, run) for run in runs]
        heapq.heapify(queue)
        closed: set[tuple[Key, str]] = set()  # pools that have all, or find no room
        while queue:
            _, arrival, run = heapq.heappop(queue)
            pool = self._smallest(run, closed)
            if pool is None:
                continue
            width, nodes = self._widths[run.key][pool.name], run.report.nodes.get(pool.name, ())
            node = nodes[width] if width < len(nodes) else None
            if self._quota_left(run, pool) > 0 and self._capacity.take(pool.needs.bundles, node):
                self._fits[run.key, pool.name] += 1
                self._give(run, pool, 1)
            elif run.request.can_grow:  # its engines wait for nodes, and an autoscaler sees them
                self._give(run, pool, min(pool.max_replicas - width, self._quota_left(run, pool)))
                closed.add((run.key, pool.name))
            else:
                closed.add((run.key, pool.name))
            heapq.heappush(queue, (self._ratio(run), arrival, run))

    def _ratio(self, run: QueuedRun) -> float:
        widths = self._widths[run.key]
        return sum(p.needs.num_devices * widths.get(p.name, 0) for p in run.request.pools) / run.request.share

    def _smallest(self, run: QueuedRun, closed: set[tuple[Key, str]]) -> PoolRequest | None:
        """The pool of a run that is furthest from its largest width."""
        widths = self._widths[run.key]
        pools = [
            pool
            for pool in run.request.pools
            if widths[pool.name] < pool.max_replicas and (run.key, pool.name) not in closed
        ]
        return min(pools, key=lambda p: widths[p.name] / p.max_replicas, default=None)

    # Quotas

    def _quota_left(self, run: QueuedRun, pool: PoolRequest) -> int:
        """Engines of a pool that the quotas still allow."""
        left = [self.quotas[label] - self._used[label] for label in _labels(run) if label in self.quotas]
        if not left or not pool.needs.num_devices:
            return pool.max_replicas
        return max(0, int(min(left) // pool.needs.num_devices))

    def _exceeded(self, run: QueuedRun) -> str | None:
        """Why the quotas do not allow the `replicas` of a run; None if they do."""
        required = sum(p.replicas * p.needs.num_devices for p in run.request.pools)
        for label in _labels(run):
            quota = self.quotas.get(label)
            if quota is not None and self._used[label] + required > quota:
                return f"the quota of {label} is {quota:g} devices, {self._used[label]:g} are taken"
        return None

    # Words

    def _grant(self, run: QueuedRun, spare: float) -> Grant:
        wait = self._waits.get(run.key)
        if wait is None:
            widths = self._widths[run.key]
            is_cut = any(widths[p.name] < min(p.replicas, run.report.num_engines(p.name)) for p in run.request.pools)
            why = f"runs of higher priority take its room: {self._holders(run)}" if is_cut else ""
            return Grant(True, widths, self._lanes[run.key], why, spare)
        waiting = [r for r in self.runs if r.key in self._waits]
        place = f"place {waiting.index(run) + 1} of {len(waiting)} in the queue"
        return Grant(False, why=f"{place}: {wait}; {self._holders(run)}", spare_cpus=spare)

    def _holders(self, run: QueuedRun) -> str:
        """The other runs that hold room, the largest first."""
        others = [r for r in self.runs if r is not run and (r.report.is_admitted or r.num_devices)]
        others.sort(key=lambda r: -r.num_devices)
        named = [f"{r.request.run} of {r.request.owner} holds {_engines(r)}" for r in others[:MAX_HOLDERS]]
        named += [f"{len(others) - MAX_HOLDERS} more runs hold room"] * (len(others) > MAX_HOLDERS)
        return "; ".join(named) or "no other run holds room, other programs may"


def _labels(run: QueuedRun) -> list[str]:
    return [f"{key}={value}" for key, value in run.request.labels.items()]


def _engines(run: QueuedRun) -> str:
    number = sum(run.num_engines(p.name) for p in run.request.pools)
    gpus = sum(p.needs.num_gpus * run.num_engines(p.name) for p in run.request.pools)
    return f"{number} engines" + (f" with {gpus:g} GPUs" if gpus else "")
