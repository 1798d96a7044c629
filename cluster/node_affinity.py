"""Keeps work that touches a local folder on the driver's node, the only node that has it."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore


def node_options(*stores: Store) -> dict[str, Any]:
    """Options of a Ray task that reads or writes the stores. With a local folder the task runs on the driver's node.

    The task then requests no CPU: engines may hold every CPU of that node, and it would wait forever.
    """
    if not any(isinstance(store, LocalStore) for store in stores):
        return {}
    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False), "num_cpus": 0}
