"""Checks before any engine starts that the cluster has room for all pools."""

import logging
import time
from collections.abc import Mapping

from gristmill.cluster.pools.placement import describe, draining_nodes, live_nodes, num_fitting, request_nodes
from gristmill.cluster.spec import PoolSpec
from gristmill.engines.needs import Needs
from gristmill.records.errors import UserError

logger = logging.getLogger(__name__)

POLL_S = 2.0


def check_room(pools: Mapping[str, tuple[Needs, PoolSpec]], wait_s: float) -> None:
    """Return when the live nodes have room for every pool and one core for the stages.

    Requests nodes from an autoscaler and waits up to `wait_s` seconds. Raises UserError with the missing resources
    when there is no room by then.
    """
    deadline = time.monotonic() + wait_s
    problem = _problem(pools)
    if problem and wait_s:
        logger.info(f"waiting up to {wait_s:.0f} s for nodes: {problem}")
        request_nodes([(needs, spec.replicas) for needs, spec in pools.values()])
        try:
            while problem and time.monotonic() < deadline:
                time.sleep(POLL_S)
                problem = _problem(pools)
        finally:
            request_nodes([])
    if problem:
        raise UserError(f"no room on the cluster: {problem}")


def _problem(pools: Mapping[str, tuple[Needs, PoolSpec]]) -> str | None:
    nodes = list(live_nodes(draining_nodes()).values())
    num_cpus = sum(n.get("CPU", 0) for n in nodes)
    if num_cpus < 1:
        return "it has no CPU to run the stages on; start it with at least one (--num-cpus)"
    described = f"the nodes have {', '.join(sorted(describe(n) for n in nodes)[:8])}{', ...' if len(nodes) > 8 else ''}"
    taken: list[tuple[Needs, int]] = []
    for name, (needs, spec) in sorted(pools.items(), key=lambda p: -p[1][0].num_gpus):
        fits = num_fitting(needs, nodes, taken, spare_cpus=0)
        if fits < spec.replicas:
            key = "cluster.replicas" if name == "generator" else f"cluster.pools.{name}.replicas"
            if not num_fitting(needs, nodes, spare_cpus=0):
                return (
                    f"no node can ever hold {'the generator' if name == 'generator' else name}, which takes {needs}; "
                    f"{described}. Lower num_cpus, num_gpus or tensor_parallel_size, or add larger nodes"
                )
            return (
                f"{name}: {spec.replicas} engine(s) of {needs} are requested and {fits} fit"
                f"{' beside the other pools' if taken else ''}; {described}. Lower {key}, or add nodes"
            )
        if not num_fitting(needs, nodes, [*taken, (needs, spec.replicas - 1)]):
            return (
                f"{name}: {spec.replicas} engine(s) of {needs} leave no CPU of {num_cpus:g} for the stages; "
                f"lower the number of replicas or num_cpus"
            )
        taken.append((needs, spec.replicas))
    return None
