"""Finds room for engines on the nodes that are alive and do not drain."""

from collections.abc import Sequence

import ray
from ray._private.state import state
from ray.autoscaler.sdk import request_resources

from gristmill.engines.needs import Needs

Resources = dict[str, float]


def draining_nodes() -> set[str]:
    """Ids of nodes that will stop: preempted, scaled down or drained by an operator."""
    return set(state.get_draining_nodes())


def live_nodes(excluded: set[str] | frozenset[str] = frozenset()) -> dict[str, Resources]:
    """Resources of the live nodes, by node id."""
    return {n["NodeID"]: n["Resources"] for n in ray.nodes() if n["Alive"] and n["NodeID"] not in excluded}


def is_alive(node: str) -> bool:
    return node in live_nodes()


def num_fitting(
    needs: Needs, nodes: Sequence[Resources], taken: Sequence[tuple[Needs, int]] = (), spare_cpus: float = 1.0
) -> int:
    """How many replicas fit in addition to `taken` (needs and count of other pools), with `spare_cpus` left for stages.

    First fit, largest needs first, like a scheduler that never moves actors.
    """
    free = [dict(node) for node in nodes]
    for other, count in sorted(taken, key=lambda t: -t[0].num_gpus):
        for _ in range(count):
            _put(other, free)
    number = 0
    while number < 100_000:
        left = sum(node.get("CPU", 0.0) for node in free) - needs.num_cpus
        if left < spare_cpus or not _put(needs, free):
            break
        number += 1
    return number


def _put(needs: Needs, free: list[Resources]) -> bool:
    """Take the bundles of one replica from `free`, all or none; returns whether they fit."""
    taken: list[tuple[Resources, Resources]] = []
    for bundle in needs.bundles:
        node = next((n for n in free if all(n.get(k, 0.0) >= v for k, v in bundle.items())), None)
        if node is None:
            for node, bundle in taken:
                for name, amount in bundle.items():
                    node[name] += amount
            return False
        for name, amount in bundle.items():
            node[name] -= amount
        taken.append((node, bundle))
    return True


def request_nodes(pools: Sequence[tuple[Needs, int]]) -> None:
    """Request room for these replicas and one core for the stages from an autoscaler, if the cluster has one.

    A request holds until the next call and keeps paid nodes alive. `request_nodes([])` withdraws it.
    """
    bundles = [bundle for needs, number in pools for _ in range(number) for bundle in needs.bundles]
    request_resources(bundles=[*bundles, {"CPU": 1.0}] if bundles else [])


def describe(node: Resources) -> str:
    return f"{node.get('CPU', 0):g} CPU/{node.get('GPU', 0):g} GPU/{node.get('memory', 0) / 2**30:.0f} GB"
