"""Hands the tasks of lots to CPU cores: first to those that the run has reserved, then to cores that are idle.

Idle cores belong to nobody: another run may take them while a task waits for one. Such a task is started again on a
reserved core. Only the first answer of a lot counts, so that this changes no row.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from gristmill.cluster.lots.in_flight import InFlightLot, Step
from gristmill.cluster.lots.work import finish_task, process_task
from gristmill.cluster.pools.replica import join_task
from gristmill.cluster.room.lane import StageLane

TASKS_PER_CORE = 3  # in work, next, and on its way
OVERDUE_S = 5.0  # without a finished task on idle cores, while a reserved core is free


class StageCpus:
    """Counts the tasks of a run on reserved and on idle cores. Without a lane the run has the cluster for itself.

    `num_reserved`: cores that engines leave to the stages, in a lane or not.
    """

    def __init__(self, num_reserved: int, lane: StageLane | None) -> None:
        self.num_reserved, self.lane = num_reserved, lane
        self.num_spare = 0.0  # cores that nobody has reserved
        self._reserved: set[int] = set()  # lots whose task is on a reserved core
        self._idle: dict[int, None] = {}  # lots whose task is on an idle core, or waits for one; oldest first
        self._finished_at = 0.0  # when a task on idle cores was last finished, or the first was started

    @property
    def num_cpus(self) -> int:
        """Cores for the stages of this run."""
        return int(self.num_spare) + self.num_reserved

    @property
    def num_tasks(self) -> int:
        """Tasks on idle cores."""
        return len(self._idle)

    def start(self, lot: InFlightLot, step: Step, pipeline_ref: Any, must_reserve: bool = False) -> list[Any]:
        """Start the task that a lot is due for; returns its references, of which the last signals its end."""
        quarantine = lot.quarantine
        if lot.phase == "finishing":
            task: Any = finish_task
            args: tuple[Any, ...] = ([pipeline_ref], lot.output_ref, lot.number, lot.verdicts)
        elif step.pool is None:
            task, args = process_task, ([pipeline_ref], lot.input_ref, step.segment)
        else:
            assert quarantine
            parts = quarantine.parts, quarantine.refused
            task, args = join_task, ([step.pool.worker_ref], lot.input_ref, *parts)
        refs = self._remote(task, lot.number, must_reserve, args)
        return refs if isinstance(refs, list) else [refs]

    def _remote(self, task: Any, lot: int, must_reserve: bool, args: tuple[Any, ...]) -> Any:
        self.end(lot)
        if self.lane is None or not (must_reserve or self._is_reserved()):
            if not self._idle:
                self._finished_at = time.monotonic()
            self._idle[lot] = None
            return task.remote(*args)
        self._reserved.add(lot)
        return task.options(**self.lane.options).remote(*args)

    def end(self, lot: int) -> None:
        """The task of a lot has ended, or its answer does not count any more."""
        self._reserved.discard(lot)
        if lot in self._idle:
            del self._idle[lot]
            self._finished_at = time.monotonic()

    def overdue(self, in_flight: Mapping[int, InFlightLot]) -> InFlightLot | None:
        """A lot whose task waits for an idle core in vain and should start again on a reserved one; None if none."""
        if self.lane is None or not self._idle or len(self._reserved) >= self.lane.num_cpus:
            return None
        if self.num_spare >= 1 and time.monotonic() - self._finished_at < OVERDUE_S:
            return None
        number = min(self._idle)
        lot = in_flight.get(number)
        if lot is None or lot.ref is None or lot.twin is not None:
            self.end(number)
            return None
        return lot

    def _is_reserved(self) -> bool:
        assert self.lane is not None
        return len(self._reserved) < self.lane.num_cpus or len(self._idle) >= TASKS_PER_CORE * int(self.num_spare)


def ends_step(lot: InFlightLot, ref: Any, future: Future[Any]) -> bool:
    """Whether the end of the call `ref` of a lot ends its step. Takes the outputs of the twin that has ended.

    A call that a rewind has made stale does not, nor does one of two twins that fails: the same task goes on elsewhere.
    """
    if lot.twin and lot.twin[0] is ref:
        lot.swap_twins()
    if lot.ref is not ref:
        return False
    if lot.twin and future.exception() is not None:
        (lot.ref, lot.output_ref), lot.twin = lot.twin, None
        return False
    return True
