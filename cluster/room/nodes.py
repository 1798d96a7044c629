"""What Ray says of the nodes of a cluster: what they hold, which drain, and what is in use."""

from collections.abc import Iterable, Mapping

import ray
from ray._private.state import state
from ray._raylet import NodeID

Resources = dict[str, float]
CALL_TIMEOUT_S = 30.0
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


def alive_among(nodes: Iterable[str]) -> set[str]:
    """Those of these node ids whose nodes are alive; asks for no others."""
    names = list(nodes)
    client = ray._private.worker.global_worker.gcs_client
    answers = client.check_alive([NodeID.from_hex(name) for name in names], timeout=CALL_TIMEOUT_S) if names else []
    return {name for name, is_alive in zip(names, answers) if is_alive}


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
