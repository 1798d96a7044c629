"""CPU cores that belong to the stages of one run, so that its lots go on whoever holds the rest of the cluster."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gristmill.cluster.room.nodes import alive_among, draining_nodes

LOOK_S = 3.0  # between two looks at a lane


class StageLane:
    """Placement groups of one core each. They wait for room, an autoscaler sees that, and they end with the driver."""

    def __init__(self, num_cpus: int) -> None:
        self.num_cpus = num_cpus
        self._groups: list[PlacementGroup] = []
        self._nodes: list[str | None] = []  # where each core is; None while it waits for room
        self._looked, self._turn = 0.0, 0
        self._waits_since = time.monotonic()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Ids of the nodes of its cores; empty while one waits for room."""
        nodes = tuple(node for node in self._nodes if node is not None)
        return nodes if len(nodes) == self.num_cpus else ()

    def start(self, nodes: Sequence[str]) -> None:
        """Ask for the cores, on these nodes if they have room."""
        self._groups = [
            placement_group([{"CPU": 1.0}], strategy="STRICT_PACK", _soft_target_node_id=node)
            for node in [*nodes, *[None] * self.num_cpus][: self.num_cpus]
        ]
        self._looked, self._waits_since, self._nodes = 0.0, time.monotonic(), [None] * self.num_cpus

    def poll(self, nodes: Sequence[str]) -> None:
        """Look whether the cores are there. Cores of a node that drains are given back, for others on `nodes`.

        A core is lost only with its node, so one call asks for all cores that are there.
        """
        now, was_ready = time.monotonic(), bool(self.nodes)
        if not self._groups or now - self._looked < (LOOK_S if was_ready else LOOK_S / 30):
            return
        self._looked = now
        nodes_now = [node or _node(group) for node, group in zip(self._nodes, self._groups)]
        alive = alive_among({node for node in nodes_now if node is not None})
        self._nodes = [node if node in alive else None for node in nodes_now]
        if was_ready and not self.nodes:  # a node is lost; Ray looks for another
            self._waits_since = now
        draining = draining_nodes()
        if draining & set(self._nodes):
            self.stop()
            self.start([node for node in nodes if node not in draining])

    @property
    def waits_s(self) -> float:
        """Seconds that it has waited for room; 0 while it has its cores."""
        return 0.0 if self.nodes else time.monotonic() - self._waits_since

    @property
    def options(self) -> dict[str, Any]:
        """Options of a Ray task that runs on the next of its cores."""
        self._turn = (self._turn + 1) % self.num_cpus
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._groups[self._turn])}

    def stop(self) -> None:
        for group in self._groups if ray.is_initialized() else ():
            remove_placement_group(group)
        self._groups, self._nodes = [], []


def _node(group: PlacementGroup) -> str | None:
    """The node of a group of one bundle; None while it waits for room."""
    table = placement_group_table(group)
    return table["bundles_to_node_id"][0] if table.get("state") == "CREATED" else None
