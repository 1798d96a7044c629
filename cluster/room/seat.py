"""A run's place in the queue of its cluster. On a shared cluster the queue is an actor, named once per cluster."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray._private.state import state
from ray.exceptions import RayError

from gristmill.cluster.driver.interrupts import deferred_interrupts, raise_if
from gristmill.cluster.driver.local_ray import is_private
from gristmill.cluster.errors import one_line
from gristmill.cluster.room.nodes import Resources, usable_nodes, used_resources
from gristmill.cluster.room.queue import RunQueue
from gristmill.cluster.room.runs import Grant, QueuedRun, RunReport, RunRequest
from gristmill.records.errors import UserError

logger = logging.getLogger(__name__)

NAME, NAMESPACE = "gristmill-queue", "gristmill"
SYNC_S = 1.0
ENGINES_PER_S = 2000  # whose nodes are reported in a second, so that large runs report less often
SAY_S = 60.0  # between two lines about a wait that has not changed
CALL_TIMEOUT_S = 30.0


def _look() -> tuple[dict[str, Resources], dict[str, Resources]]:
    nodes = usable_nodes()
    return nodes, used_resources(nodes)


def _look_alone() -> tuple[dict[str, Resources], dict[str, Resources]]:
    return usable_nodes(), {}


def _dead_jobs() -> list[str]:
    return [job["JobID"] for job in state.job_table() if job["IsDead"]]


@ray.remote(num_cpus=0, max_restarts=-1)
class RunQueueActor:
    """The queue of a shared cluster. It lives as long as the cluster; after a restart the runs join it again."""

    def __init__(self) -> None:
        self._queue = RunQueue(_look, _dead_jobs)

    def sync(self, request: RunRequest, job: str, report: RunReport) -> Grant:
        return self._queue.sync(request, job, report)

    def leave(self, run: str, job: str, warm: list[tuple[str, dict[str, float]]]) -> None:
        self._queue.leave(run, job, warm)

    def runs(self) -> list[QueuedRun]:
        self._queue.divide()
        return sorted(self._queue.runs.values(), key=lambda r: (-r.request.priority, r.arrival))

    def quotas(self, changes: dict[str, float | None]) -> dict[str, float]:
        """Change quotas; None removes one. Returns those in force."""
        for label, devices in changes.items():
            self._queue.quotas.pop(label, None)
            if devices is not None:
                self._queue.quotas[label] = devices
        return dict(self._queue.quotas)


def queue_actor(create: bool = True) -> Any:
    """The actor of this cluster, None if there is none and none is created."""
    if not create:
        try:
            return ray.get_actor(NAME, NAMESPACE)
        except ValueError:
            return None
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return RunQueueActor.options(**options).remote()  # type: ignore[attr-defined]


def queue_state(quotas: Mapping[str, float | None]) -> tuple[list[QueuedRun], dict[str, float]]:
    """The runs of the connected cluster in the order in which they are served, and its quotas after these changes.

    Raises UserError when the queue does not answer.
    """
    actor = queue_actor(create=bool(quotas))
    if actor is None:
        return [], {}
    try:
        in_force: dict[str, float] = ray.get(actor.quotas.remote(dict(quotas)), timeout=CALL_TIMEOUT_S)
        runs: list[QueuedRun] = ray.get(actor.runs.remote(), timeout=CALL_TIMEOUT_S)
    except (RayError, TimeoutError) as error:
        raise UserError(f"the queue of runs does not answer: {one_line(error)}; try again in a minute") from None
    return runs, in_force


class Seat:
    """A run's place in the queue. `grant` is what it may hold, as of the last answer."""

    def __init__(self, request: RunRequest) -> None:
        self.request, self.grant = request, Grant()
        self.job = ray.get_runtime_context().get_job_id()
        self.is_shared = not is_private()
        self._own = None if self.is_shared else RunQueue(_look_alone, list)
        self._actor: Any = None
        self._answer: Future[Grant] | None = None
        self._synced = 0.0
        self._is_admitted = False

    def wait(self, wait_s: float, is_stopped: Callable[[], bool]) -> None:
        """Wait until the run is admitted; what it waits for is logged.

        Raises UserError when it is not admitted within `wait_s` seconds, with what holds the room, and
        KeyboardInterrupt at Ctrl-C and SIGTERM. Outside the main thread, which gets no signals, `is_stopped` tells of
        them.
        """
        end, shown, words = time.monotonic() + wait_s, 0.0, ""
        with deferred_interrupts(lambda: None) as interruption:
            while not interruption.is_set():
                if is_stopped():
                    raise KeyboardInterrupt
                self._ask()
                now = time.monotonic()
                if self.grant.is_admitted:
                    return
                # A run that has just joined has no reason yet: the queue divides the room every few seconds at most.
                if now >= end and (self.grant.why or now >= end + CALL_TIMEOUT_S):
                    raise UserError(
                        f"no room on the cluster: {self.grant.why}. Run the command again later, raise cluster.wait_s "
                        f"(now {wait_s:g} s), or lower cluster.replicas; `gristmill queue` shows all runs"
                    )
                if self.grant.why and (self.grant.why != words or now - shown > SAY_S):
                    words, shown = self.grant.why, now
                    logger.info(f"waiting for room for up to {end - now:.0f} s: {words}")
                interruption.wait(SYNC_S)
        raise_if(interruption)

    def _ask(self) -> None:
        try:
            self._take(self._request(RunReport()).result(timeout=CALL_TIMEOUT_S))
        except (RayError, TimeoutError) as error:
            self._actor = None
            self.grant = Grant(why=f"the queue of runs does not answer ({one_line(error)})")

    def poll(self, report: Callable[[], RunReport], num_engines: int) -> None:
        """Exchange report and grant, without waiting. A queue that does not answer leaves the grant as it is."""
        now = time.monotonic()
        if self._answer is not None and self._answer.done():
            try:
                self._take(self._answer.result())
            except RayError as error:
                logger.debug(f"the queue of runs did not answer: {one_line(error)}")
                self._actor = None
            self._answer = None
        if self._answer is None and now - self._synced > max(SYNC_S, num_engines / ENGINES_PER_S):
            self._synced = now
            self._answer = self._request(report())

    def width(self, pool: str) -> int:
        """The number of engines that a pool may have."""
        return self.grant.widths.get(pool, 0)

    def leave(self, warm: Sequence[tuple[str, Mapping[str, float]]] = ()) -> None:
        """Give the room back. The end of the driver's job does the same.

        `warm`: node and resources of engines that wait for the next run of this process.
        """
        if self._actor is not None:
            try:
                ray.get(self._actor.leave.remote(self.request.run, self.job, list(warm)), timeout=CALL_TIMEOUT_S)
            except (RayError, TimeoutError) as error:
                logger.debug(f"the queue of runs did not answer: {one_line(error)}")

    def _take(self, grant: Grant) -> None:
        if self._is_admitted and not grant.is_admitted:
            return  # the queue was restarted and does not know this run yet
        self.grant, self._is_admitted = grant, grant.is_admitted

    def _request(self, report: RunReport) -> "Future[Grant]":
        if self._own is not None:
            answer: Future[Grant] = Future()
            answer.set_result(self._own.sync(self.request, self.job, report))
            return answer
        if self._actor is None:
            self._actor = queue_actor()
        future: Future[Grant] = self._actor.sync.remote(self.request, self.job, report).future()
        return future
