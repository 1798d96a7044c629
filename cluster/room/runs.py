"""What a run requests of a cluster, what it holds there, and what it is granted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gristmill.engines.needs import Needs


@dataclass(frozen=True)
class PoolRequest:
    """The engines that a run requests for one pool: `replicas` to start with, up to `max_replicas`."""

    name: str
    needs: Needs
    replicas: int
    max_replicas: int


@dataclass(frozen=True)
class RunRequest:
    """What a run requests. `run` is the address of its output, which names it.

    can_grow: an autoscaler is expected to add nodes, so the run starts before the cluster can hold it.
    """

    run: str
    recipe: str
    owner: str  # user and host
    pools: tuple[PoolRequest, ...] = ()
    stage_cpus: int = 1  # reserved CPU cores for its stages
    priority: int = 0
    share: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    can_grow: bool = False

    def pool(self, name: str) -> PoolRequest:
        return next(pool for pool in self.pools if pool.name == name)


@dataclass(frozen=True)
class RunReport:
    """What a run holds now.

    nodes: ids of the nodes of its placed engines, by pool; a pool may be left out, then it is taken to have all engines
    that it is granted. lane: nodes of its reserved CPU cores. num_tasks: its tasks
    on CPU cores that nobody has reserved. progress: words for people.
    """

    is_admitted: bool = False
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lane: tuple[str, ...] = ()
    num_tasks: int = 0
    progress: str = ""

    def num_engines(self, pool: str) -> int:
        return len(self.nodes.get(pool, ()))


@dataclass(frozen=True)
class Grant:
    """What a run may hold: the number of engines by pool, once it is admitted.

    lane: ids of the nodes for its reserved CPU cores. why: in words, what a run that is not admitted waits for, or what
    has taken engines from it. spare_cpus: CPU cores that nobody has reserved, which the tasks of all runs share; none
    while an engine of any run waits for cores that such tasks take in turns.
    """

    is_admitted: bool = False
    widths: Mapping[str, int] = field(default_factory=dict)
    lane: tuple[str, ...] = ()
    why: str = ""
    spare_cpus: float = 0.0


@dataclass
class QueuedRun:
    """A run in the queue of a cluster."""

    request: RunRequest
    job: str  # id of its Ray job
    arrival: int  # smaller: earlier
    since: float  # when it came, in seconds of the epoch
    report: RunReport = RunReport()
    grant: Grant = Grant()
    grew_at: float = float("-inf")  # monotonic time of the last grant of more engines

    @property
    def key(self) -> tuple[str, str]:
        """A driver that was paused and its successor are two runs: both may hold engines."""
        return self.request.run, self.job

    @property
    def num_devices(self) -> float:
        """GPUs of its placed engines; an engine without a GPU counts as one device."""
        return sum(p.needs.num_devices * self.num_engines(p.name) for p in self.request.pools)

    def num_engines(self, pool: str) -> int:
        """Number of placed engines of a pool; those that are granted, if it does not report its nodes."""
        return self.report.num_engines(pool) if pool in self.report.nodes else self.grant.widths.get(pool, 0)
