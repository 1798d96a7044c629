"""Reads many pieces of an output in order: on the cluster where there is one, else on this machine."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from gristmill.records.stores.contract import Store

T = TypeVar("T")
R = TypeVar("R")


def is_on_cluster() -> bool:
    """Whether this process is connected to a Ray, or knows the address of a cluster (in a Ray job it does)."""
    ray = sys.modules.get("ray")  # its import takes a second
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local") or bool(ray and ray.is_initialized())


def ordered_reads(
    store: Store, read: Callable[[Sequence[T]], Sequence[R]], tasks: Sequence[Sequence[T]], use_tasks: bool
) -> Iterator[R]:
    """The results of `read(task)` of each task, in order; `read` can be pickled.

    With `use_tasks` as Ray tasks, on the cluster or on a local Ray, which takes seconds to start; else in this process.
    """
    if not use_tasks:
        for task in tasks:
            yield from read(task)
        return
    from gristmill.cluster.batch_work import batch_work

    with batch_work(store) as workers:
        for results in workers.ordered(read, tasks):
            yield from results
