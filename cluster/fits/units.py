"""Runs dependent units of work on Ray: longest remaining chain first, each unit once, failures isolated.

A unit has a `key`, `needs` (the key of the unit before it, or None) and `left` (the remaining length of its chain). A
worker calls `do` with a list of units. `do` puts its results into a store, so a finished unit costs one look-up.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray

from gristmill.cluster.connect import WORKER_ENV
from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.cluster.spec import UnitSpec
from gristmill.records.errors import UserError

WAIT_S = 0.5
TASKS_PER_CORE = 4  # bundles of light units per core: few enough to be cheap, enough to balance the load


class Unit(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def needs(self) -> str | None: ...
    @property
    def left(self) -> int: ...


@dataclass
class Progress:
    """The state of all units."""

    num_units: int
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)  # key: reason; includes the units that needed a failed unit
    seconds: float = 0.0  # of work, summed over units
    going: list[str] = field(default_factory=list)  # keys of the units that workers are running


def run_units(
    units: Iterable[Unit],
    is_done: Callable[[Sequence[str]], set[str]],
    do: Callable[[Sequence[Any]], list[tuple[str, float, str | None]]],
    spec: UnitSpec,
    on_progress: Callable[[Progress], None],
    is_stopped: Callable[[], bool],
    threads: int = 1,
) -> Progress:
    """Run all units; units with the same key run once. `threads`: OMP threads per unit.

    `do` returns (key, seconds, reason of failure or None) for each of its units. A unit that loses its worker is
    retried `spec.max_retries` times. Raises RunFailed when `do` raises: it should return failures.
    """
    waiting = {unit.key: unit for unit in units}
    progress = Progress(len(waiting))
    progress.done = is_done(list(waiting)) & set(waiting)
    after: dict[str, list[Unit]] = defaultdict(list)
    ready: list[tuple[int, int, Unit]] = []
    for order, unit in enumerate(waiting.values()):
        if unit.key in progress.done:
            continue
        if unit.needs is None or unit.needs in progress.done:
            heapq.heappush(ready, (-unit.left, order, unit))
        else:
            after[unit.needs].append(unit)
    order = len(waiting)
    num_cores = int(ray.cluster_resources().get("CPU", 1)) or 1
    window = max(1, int(2 * num_cores / spec.num_cpus))
    size = 1 if after else max(1, len(ready) // (num_cores * TASKS_PER_CORE))
    remote = ray.remote(_do).options(
        num_cpus=spec.num_cpus,
        num_gpus=spec.num_gpus,
        max_retries=0,
        runtime_env={"env_vars": {**WORKER_ENV, "OMP_NUM_THREADS": str(threads)}},
    )
    running: dict[Any, list[Unit]] = {}
    tries: dict[str, int] = defaultdict(int)
    on_progress(progress)
    while (ready and not is_stopped()) or running:
        while ready and len(running) < window and not is_stopped():
            bundle = [heapq.heappop(ready)[2] for _ in range(min(size, len(ready)))]
            running[remote.remote(do, bundle)] = bundle
        progress.going = [unit.key for bundle in running.values() for unit in bundle]
        finished, _ = ray.wait(list(running), timeout=WAIT_S)
        for ref in finished:
            bundle = running.pop(ref)
            for key, seconds, failure in _answers(ref, bundle, tries, spec):
                if failure == AGAIN:
                    order += 1
                    heapq.heappush(ready, (-waiting[key].left, order, waiting[key]))
                    continue
                if failure is not None:
                    _fail(progress, after, key, failure)
                    continue
                progress.done.add(key)
                progress.seconds += seconds
                for unit in after.pop(key, []):
                    order += 1
                    heapq.heappush(ready, (-unit.left, order, unit))
        on_progress(progress)
    return progress


AGAIN = "again"


def _do(do: Callable[[Sequence[Any]], list[tuple[str, float, str | None]]], bundle: list[Unit]) -> Any:
    return do(bundle)


def _answers(
    ref: Any, bundle: list[Unit], tries: dict[str, int], spec: UnitSpec
) -> list[tuple[str, float, str | None]]:
    try:
        answers: list[tuple[str, float, str | None]] = ray.get(ref)
        return answers
    except LOSSES as error:
        losses: list[tuple[str, float, str | None]] = []
        for unit in bundle:
            tries[unit.key] += 1
            is_over = tries[unit.key] > spec.max_retries
            losses.append((unit.key, 0.0, f"its worker was lost {tries[unit.key]} times" if is_over else AGAIN))
        if not losses:
            raise RunFailed(one_line(error)) from error
        return losses
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        raise RunFailed(f"a unit failed: {type(cause).__name__}: {one_line(cause)}") from error


def _fail(progress: Progress, after: dict[str, list[Unit]], key: str, reason: str) -> None:
    """Mark the unit and all units that depend on it as failed."""
    progress.failed[key] = reason
    for unit in after.pop(key, []):
        _fail(progress, after, unit.key, f"the unit before it failed: {reason}")
