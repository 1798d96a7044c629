"""A local folder is on the driver's node only: work that touches it must run there."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore


def near(*stores: Store) -> dict[str, Any]:
    """Options for a Ray task that reads or writes the stores: on the driver's node when one of them is a folder.

    Such a task asks for no CPU: engines may hold all that the node has, and it would wait for ever.
    """
    if not any(isinstance(store, LocalStore) for store in stores):
        return {}
    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False), "num_cpus": 0}
