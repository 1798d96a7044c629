"""What Ray says of the nodes of a cluster: what they hold, which drain, and what is in use."""

from collections.abc import Mapping

import ray
from ray._private.state import state

Resources = dict[str, float]
COUNTED = ("CPU", "GPU", "memory")  # what engines request; nodes have others, such as their address


def draining_nodes() -> set[str]:
    """Ids of nodes that will stop: preempted, scaled down or drained by an operator."""
    return set(state.get_draining_nodes())


def live_nodes(excluded: set[str] | frozenset[str] = frozenset()) -> dict[str, Resources]:
    """What the live nodes hold of CPU, GPU and memory, by node id."""
    return {
        node["NodeID"]: {name: amount for name, amount in node["Resources"].items() if name in COUNTED}
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in excluded
    }


def usable_nodes() -> dict[str, Resources]:
    """`live_nodes` without those that drain."""
    return live_nodes(draining_nodes())


def is_alive(node: str) -> bool:
    """Whether a node is alive; asks for this node only."""
    try:
        return bool(state.get_node(node)["state"] == "ALIVE")
    except (ValueError, KeyError, RuntimeError):
        return False


def used_resources(nodes: Mapping[str, Resources]) -> dict[str, Resources]:
    """What is in use of each of `nodes`, by anybody."""
    free = state.available_resources_per_node()
    return {
        node: {name: amount - free[node].get(name, 0.0) for name, amount in resources.items()}
        for node, resources in nodes.items()
        if node in free
    }


def describe(node: Resources) -> str:
    return f"{node.get('CPU', 0):g} CPU/{node.get('GPU', 0):g} GPU/{node.get('memory', 0) / 2**30:.0f} GB"
