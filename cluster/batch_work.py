"""Runs functions over many pieces of work as Ray tasks, a bounded number of them at once.

For batch work over whole corpora: packing a release, reading for an audit. Tasks have no side effects but puts that
write the same bytes again, so Ray may repeat a task that is lost.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import ray

from gristmill.cluster.connect import connected
from gristmill.cluster.errors import one_line
from gristmill.cluster.node_affinity import node_options
from gristmill.cluster.preflight import request_of, seated
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.errors import UserError
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore

TASKS_PER_CORE = 2  # begun or waiting: the next task of a core is there when one ends

T = TypeVar("T")
R = TypeVar("R")


@ray.remote(num_cpus=1, max_retries=3)
def _task(function: Callable[..., Any], *arguments: Any) -> Any:
    pa.set_cpu_count(1)
    return function(*arguments)


class Workers:
    """The tasks of one piece of batch work."""

    def __init__(self, options: dict[str, Any], num_at_once: int) -> None:
        """`options` are those of the tasks; `num_at_once` is how many may run or wait for a core."""
        self._options, self.num_at_once = options, num_at_once

    def shared(self, value: Any) -> Any:
        """A reference to a value that many tasks take as an argument."""
        return ray.put(value)

    def start(self, function: Any, *arguments: Any, num_returns: int = 1) -> list[Any]:
        """References to the results of `function(*arguments)`, a function that returns so many values, or yields them.

        Arguments that are references are passed as their values; those in a list stay references, see `fetch`.
        """
        refs = _task.options(num_returns=num_returns, **self._options).remote(function, *arguments)
        return refs if isinstance(refs, list) else [refs]

    def finished(self, refs: Sequence[Any]) -> Any:
        """One of the references, whose task has ended."""
        return ray.wait(list(refs), num_returns=1, fetch_local=False)[0][0]

    @staticmethod
    def fetch(ref: Any) -> Any:
        """The value of a reference, here or in a task. Raises what its task raised."""
        return ray.get(ref)

    def results(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """(item, function(item)) in the order in which the tasks end."""
        shared, rest = self.shared(function), iter(items)
        running: dict[Any, T] = {}
        while True:
            for item in islice(rest, self.num_at_once - len(running)):
                running[self.start(shared, item)[0]] = item
            if not running:
                return
            ref = self.finished(list(running))
            yield running.pop(ref), self.fetch(ref)

    def ordered(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function(item)` in the order of the items; at most `num_at_once` results wait."""
        shared = self.shared(function)
        running: deque[Any] = deque()
        for item in items:
            running.append(self.start(shared, item)[0])
            if len(running) >= self.num_at_once:
                yield self.fetch(running.popleft())
        while running:
            yield self.fetch(running.popleft())


@contextmanager
def batch_work(*stores: Store) -> Iterator[Workers]:
    """Connect to Ray for batch work whose tasks read or write `stores`.

    A UserError of a task is raised as a UserError with its first line.
    """
    is_local, spec = any(isinstance(store, LocalStore) for store in stores), ClusterSpec()
    with connected(spec), seated(request_of(stores[-1].uri, "batch work", {}, spec, stage_cpus=not is_local), spec):
        num_cores = os.cpu_count() if is_local else int(ray.cluster_resources().get("CPU", 1))
        try:
            # Tasks at a local folder request no CPU, so they must not outnumber the cores.
            num_at_once = max(1, num_cores or 1) * (1 if is_local else TASKS_PER_CORE)
            yield Workers(node_options(*stores), num_at_once)
        except (UserError, ray.exceptions.RayError) as error:
            cause = getattr(error, "cause", None) or error  # a task's error is both types and includes its stack
            if isinstance(cause, UserError):
                raise UserError(str(cause).splitlines()[0]) from None
            if isinstance(error, ray.exceptions.RayTaskError):
                raise
            raise UserError(f"a task was lost too often: {one_line(error)}; run the same command again") from error
