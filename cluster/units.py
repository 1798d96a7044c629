"""Units of work that depend on one another, done on Ray: longest remaining chain first, each once, failures isolated.

A unit is anything with `key`, `needs` (the key of the unit before it, or None) and `left` (how long its chain still
is). `do` is called with a list of units in a worker; it leaves its result in a store, so that a unit that was done
before, by anybody, costs a look.
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
TASKS_A_CORE = 4  # into which light units are bundled: few enough to cost nothing, enough to even out


class Unit(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def needs(self) -> str | None: ...
    @property
    def left(self) -> int: ...


@dataclass
class Progress:
    """What is known while units are done."""

    num_units: int
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)  # key: why; those that needed a failed one included
    seconds: float = 0.0  # of work, summed over units
    going: list[str] = field(default_factory=list)  # keys of units that were handed to workers


def run_units(
    units: Iterable[Unit],
    is_done: Callable[[Sequence[str]], set[str]],
    do: Callable[[Sequence[Any]], list[tuple[str, float, str | None]]],
    spec: UnitSpec,
    tell: Callable[[Progress], None],
    is_stopped: Callable[[], bool],
    threads: int = 1,
) -> Progress:
    """Do all units; those with the same key once. `threads`: of the sums of each.

    `do` answers (key, seconds, why it failed or None) for each of its units. A unit whose worker is lost is tried
    again `spec.max_retries` times. Raises RunFailed when a worker raises: what a unit cannot do, it answers.
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
    size = 1 if after else max(1, len(ready) // (num_cores * TASKS_A_CORE))
    remote = ray.remote(_do).options(
        num_cpus=spec.num_cpus,
        num_gpus=spec.num_gpus,
        max_retries=0,
        runtime_env={"env_vars": {**WORKER_ENV, "OMP_NUM_THREADS": str(threads)}},
    )
    going: dict[Any, list[Unit]] = {}
    tries: dict[str, int] = defaultdict(int)
    tell(progress)
    while (ready and not is_stopped()) or going:
        while ready and len(going) < window and not is_stopped():
            bundle = [heapq.heappop(ready)[2] for _ in range(min(size, len(ready)))]
            going[remote.remote(do, bundle)] = bundle
        progress.going = [unit.key for bundle in going.values() for unit in bundle]
        found, _ = ray.wait(list(going), timeout=WAIT_S)
        for ref in found:
            bundle = going.pop(ref)
            for key, seconds, why in _answers(ref, bundle, tries, spec):
                if why == AGAIN:
                    order += 1
                    heapq.heappush(ready, (-waiting[key].left, order, waiting[key]))
                    continue
                if why is not None:
                    _fail(progress, after, key, why)
                    continue
                progress.done.add(key)
                progress.seconds += seconds
                for unit in after.pop(key, []):
                    order += 1
                    heapq.heappush(ready, (-unit.left, order, unit))
        tell(progress)
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
        told: list[tuple[str, float, str | None]] = []
        for unit in bundle:
            tries[unit.key] += 1
            is_over = tries[unit.key] > spec.max_retries
            told.append((unit.key, 0.0, f"its worker was lost {tries[unit.key]} times" if is_over else AGAIN))
        if not told:
            raise RunFailed(one_line(error)) from error
        return told
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        raise RunFailed(f"a unit failed: {type(cause).__name__}: {one_line(cause)}") from error


def _fail(progress: Progress, after: dict[str, list[Unit]], key: str, why: str) -> None:
    """Give up the unit and all that come after it."""
    progress.failed[key] = why
    for unit in after.pop(key, []):
        _fail(progress, after, unit.key, f"the unit before it failed: {why}")
