"""Needs against what the cluster has, before any engine starts."""

import ray

from cluster.spec import ClusterSpec
from generators.contract import Needs
from records.errors import UserError


def check_room(needs: Needs, spec: ClusterSpec) -> None:
    """Raise UserError when the pool and one core for the stages cannot be placed on the nodes that are alive."""
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    num_cpus = sum(n.get("CPU", 0) for n in nodes)
    if num_cpus < 1:
        raise UserError("the cluster has no CPU to run the stages on; start it with at least one (--num-cpus)")
    if not needs.pooled:
        return
    wanted = {"CPU": needs.num_cpus, "GPU": needs.num_gpus, "memory": needs.memory_gb * 2**30}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    places = sum(_fits(node, wanted) for node in nodes)
    if places < spec.replicas:
        raise UserError(
            f"no room on the cluster: {spec.replicas} engine(s) of {describe(needs)} are wanted and {places} fit; "
            f"the nodes have {', '.join(_describe_node(n) for n in nodes)}. Lower cluster.replicas or the generator's "
            f"num_cpus/num_gpus, or add nodes"
        )
    if num_cpus - spec.replicas * needs.num_cpus < 1:
        raise UserError(
            f"no room on the cluster: {spec.replicas} engine(s) of {describe(needs)} leave no CPU of {num_cpus:g} for "
            f"the stages; lower cluster.replicas or generator.num_cpus"
        )


def _fits(node: dict[str, float], wanted: dict[str, float]) -> int:
    """How many engines fit on one node."""
    return int(min((node.get(name, 0) // amount for name, amount in wanted.items()), default=10**6))


def describe(needs: Needs) -> str:
    parts = [f"{needs.num_cpus:g} CPU"]
    if needs.num_gpus:
        parts.append(f"{needs.num_gpus:g} GPU")
    if needs.memory_gb:
        parts.append(f"{needs.memory_gb:g} GB")
    return " + ".join(parts)


def _describe_node(node: dict[str, float]) -> str:
    return f"{node.get('CPU', 0):g} CPU/{node.get('GPU', 0):g} GPU/{node.get('memory', 0) / 2**30:.0f} GB"
