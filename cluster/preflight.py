"""Checks before anything starts whether a cluster can hold a run, and waits for the run's turn."""

import getpass
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from gristmill.cluster.pools.warm import held_warm
from gristmill.cluster.room.capacity import Capacity, Resources
from gristmill.cluster.room.nodes import describe, usable_nodes
from gristmill.cluster.room.runs import PoolRequest, RunRequest
from gristmill.cluster.room.seat import Seat
from gristmill.cluster.room.shares import CORE
from gristmill.cluster.spec import ClusterSpec, PoolSpec
from gristmill.engines.needs import Needs
from gristmill.records.errors import UserError

logger = logging.getLogger(__name__)

REPLICAS = {"generator": "cluster.replicas", "engines": "engines.replicas"}  # keys of pools that are no stages


def request_of(
    run: str,
    recipe: str,
    pools: Mapping[str, tuple[Needs, PoolSpec]],
    spec: ClusterSpec,
    stage_cpus: int | None = None,
) -> RunRequest:
    """What a run with these pools requests of a cluster. `stage_cpus`: if not those of `spec`."""
    requests = tuple(
        PoolRequest(name, needs, pool.replicas, pool.max_replicas or pool.replicas)
        for name, (needs, pool) in pools.items()
    )
    owner = f"{_user()} on {socket.gethostname()}"
    can_grow = spec.nodes_timeout_s > 0
    num_cores = spec.stage_cpus if stage_cpus is None else stage_cpus
    return RunRequest(run, recipe, owner, requests, num_cores, spec.priority, spec.share, dict(spec.labels), can_grow)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return "unknown"


@contextmanager
def seated(request: RunRequest, spec: ClusterSpec, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[Seat]:
    """The place of a run in the queue of its cluster, once the run is admitted.

    `is_stopped` ends the wait where the thread gets no signals. Raises UserError when the cluster cannot hold the run
    and no autoscaler is expected, and when it is not admitted within `spec.wait_s` seconds; KeyboardInterrupt when it
    is stopped.
    """
    nodes = usable_nodes()
    if not request.can_grow and (problem := shortage(request, nodes)):
        raise UserError(f"no room on the cluster: {problem}")
    for words in surplus(request, nodes):
        logger.warning(words)
    seat = Seat(request)
    try:
        seat.wait(spec.wait_s, is_stopped)
        yield seat
    finally:
        seat.leave(held_warm())


def shortage(request: RunRequest, nodes: Mapping[str, Resources]) -> str | None:
    """Why the nodes cannot hold a run that has them for itself; None if they can."""
    capacity = Capacity(nodes)
    num_cpus = capacity.total("CPU")
    if num_cpus < 1 and request.stage_cpus:
        return "it has no CPU to run the stages on; start it with at least one (--num-cpus)"
    shapes = sorted(describe(dict(node)) for node in nodes.values())
    described = f"the nodes have {', '.join(shapes[:8])}{', ...' if len(shapes) > 8 else ''}"
    has_cores = capacity.copy().take([CORE] * request.stage_cpus)
    is_first = True
    for pool in sorted(request.pools, key=lambda p: -p.needs.num_gpus):
        name = pool.name
        fits = capacity.take_many(pool.needs, pool.replicas)
        if fits < pool.replicas:
            if not Capacity(nodes).take(pool.needs.bundles):
                return (
                    f"no node can ever hold {'the generator' if name == 'generator' else name}, which takes "
                    f"{pool.needs}; {described}. Lower num_cpus, num_gpus or tensor_parallel_size, or add larger nodes"
                )
            key = REPLICAS.get(name, f"cluster.pools.{name}.replicas")
            return (
                f"{name}: {pool.replicas} engine(s) of {pool.needs} are requested and {fits} fit"
                f"{'' if is_first else ' beside the other pools'}; {described}. "
                f"{_cpu_remedy(pool, nodes) or f'Lower {key}, or add nodes'}"
            )
        if not capacity.copy().take([CORE] * request.stage_cpus):
            return (
                f"{name}: {pool.replicas} engine(s) of {pool.needs} leave no CPU of {num_cpus:g} for the stages; "
                f"lower the number of replicas or num_cpus"
            )
        is_first = False
    return None if has_cores else f"cluster.stage_cpus = {request.stage_cpus} and it has {num_cpus:g} CPUs; {described}"


def surplus(request: RunRequest, nodes: Mapping[str, Resources]) -> list[str]:
    """GPUs that the engines of a run cannot use because their nodes have too few CPUs, in words."""
    lines = []
    for pool in request.pools:
        fits = Capacity(nodes).take_many(pool.needs, pool.max_replicas)
        if fits < pool.max_replicas and (words := _cpu_remedy(pool, nodes)):
            lines.append(f"{pool.name}: {fits} of {pool.max_replicas} engines fit. {words}")
    return lines


def _cpu_remedy(pool: PoolRequest, nodes: Mapping[str, Resources]) -> str | None:
    """What to do if only CPUs limit the engines on GPUs; None if they do not."""
    if not pool.needs.num_gpus or not pool.needs.num_cpus:
        return None
    fits = Capacity(nodes).take_many(pool.needs, pool.max_replicas)
    by_gpus = Capacity(nodes).take_many(replace(pool.needs, num_cpus=0.0), pool.max_replicas)
    if by_gpus <= fits:
        return None
    return (
        f"The GPUs would hold {by_gpus}: each engine takes {pool.needs.num_cpus:g} CPU, and the GPU nodes have fewer "
        f"CPUs than GPUs for them. Start the nodes with more CPUs (`ray start --num-cpus`, or num-cpus in "
        f"rayStartParams), or lower num_cpus of the engine"
    )
