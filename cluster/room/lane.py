"""CPU cores that belong to the stages of one run, so that its lots go on whoever holds the rest of the cluster."""

import time
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gristmill.cluster.room.nodes import draining_nodes

LOOK_S = 3.0  # between two looks at a lane


class StageLane:
    """A placement group of single cores. It waits for room, an autoscaler sees that, and it ends with the driver."""

    def __init__(self, num_cpus: int) -> None:
        self.num_cpus = num_cpus
        self.nodes: tuple[str, ...] = ()  # where its cores are; empty while it waits for room
        self._group: PlacementGroup | None = None
        self._looked = 0.0
        self._waits_since = time.monotonic()

    def start(self) -> None:
        self._group = placement_group([{"CPU": 1.0}] * self.num_cpus, strategy="PACK")
        self._looked, self._waits_since, self.nodes = 0.0, time.monotonic(), ()

    def poll(self) -> None:
        """Look whether the cores are there. Cores of a node that drains are given back for others."""
        now = time.monotonic()
        if self._group is None or now - self._looked < (LOOK_S if self.nodes else LOOK_S / 30):
            return
        self._looked = now
        table: dict[str, Any] = placement_group_table(self._group)
        is_ready = table.get("state") == "CREATED"
        if is_ready and not self.nodes:
            self.nodes = tuple(table["bundles_to_node_id"].values())
        elif not is_ready and self.nodes:  # its node is lost; Ray looks for another
            self.nodes, self._waits_since = (), now
        if self.nodes and draining_nodes() & set(self.nodes):
            self.stop()
            self.start()

    @property
    def waits_s(self) -> float:
        """Seconds that it has waited for room; 0 while it has its cores."""
        return 0.0 if self.nodes else time.monotonic() - self._waits_since

    @property
    def options(self) -> dict[str, Any]:
        """Options of a Ray task that runs on its cores."""
        assert self._group is not None
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._group)}

    def stop(self) -> None:
        if self._group is not None and ray.is_initialized():
            remove_placement_group(self._group)
        self._group, self.nodes = None, ()
