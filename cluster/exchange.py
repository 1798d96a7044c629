"""The global shuffle of a release: rows go from the tasks that read them to the tasks that write shards.

Rows travel in Ray's object store, which spills to disk when it is full. The unit of exchange is a window of a shard, of
about PART_BYTES in memory, so the memory of a task does not grow with the release. Where there are more than FAN_OUT
windows, rows go in two steps: from readers to groups of shards, then within each group to windows. So no task has more
than FAN_OUT outputs. Where the groups would have more than MAX_PIECES pieces, the rows are read several times, each
time for some of the groups.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.cluster.batch_work import Workers
from gristmill.cluster.shuffle import PLACE, SHARD, Layout, ShardFile, shard_writer
from gristmill.records.stores.contract import Store

PART_BYTES = 256 << 20  # in memory: of the rows that a task reads, and of a window of a shard
FAN_OUT = 512  # outputs of a task
MAX_PIECES = 2_000_000  # that the driver keeps references of, about 1 KB each
Read = Callable[[Any], pa.Table]  # the work of a task -> its rows, see `with_target`


@dataclass(frozen=True)
class Route:
    """Sends rows to outputs: `output` by shard, int32 (num_shards,), -1 for shards that are not written now.

    With `layout`, each of these outputs is one for every window of the shard.
    """

    output: np.ndarray
    num_outputs: int
    layout: Layout | None = None

    def split(self, table: pa.Table) -> Iterator[Any]:
        """Yields (number of rows, bytes of each output), then the rows of each output; None for one without rows."""
        table = table.combine_chunks()
        outputs = self.output[table.column(SHARD).to_numpy()].astype(np.int64)
        if self.layout:
            windows = self.layout.window(table.column(PLACE).to_numpy())
            outputs = np.where(outputs < 0, -1, outputs * self.layout.num_windows + windows)
        order = np.argsort(outputs, kind="stable")
        edges = np.searchsorted(outputs[order], np.arange(self.num_outputs + 1))
        row_bytes = table.nbytes / max(1, table.num_rows)
        yield table.num_rows, (np.diff(edges) * row_bytes).tolist()
        for start, stop in pairwise(edges.tolist()):
            yield table.take(pa.array(order[start:stop])) if stop > start else None


@dataclass
class Exchange:
    """Writes the shards of a release from rows that tasks read."""

    workers: Workers
    target: Store
    layout: Layout
    schema: pa.Schema
    on_read: Callable[[int], None]  # called with the rows that a task has read
    on_shard: Callable[[ShardFile], None]

    def passes(self, shards: Sequence[int], num_tasks: int) -> list[list[Sequence[int]]]:
        """The shards in groups whose rows travel together, and the groups of each reading of all rows."""
        per_group = max(1, FAN_OUT // self.layout.num_windows)
        groups = [shards[at : at + per_group] for at in range(0, len(shards), per_group)]
        width = max(1, min(FAN_OUT, MAX_PIECES // max(1, num_tasks)))
        return [groups[at : at + width] for at in range(0, len(groups), width)]

    def run(self, read: Read, tasks: Sequence[Any], shards: Sequence[int]) -> None:
        """Write `shards`; `read(task)` gives the rows of each task."""
        for groups in self.passes(shards, len(tasks)):
            self._pass(read, tasks, groups)

    def _pass(self, read: Read, tasks: Sequence[Any], groups: Sequence[Sequence[int]]) -> None:
        if len(groups) == 1:
            self._write(groups[0], self._scatter(_Reading(read, self._windows(groups[0])), tasks, self.on_read))
            return
        output = np.full(self.layout.num_shards, -1, np.int32)
        for number, group in enumerate(groups):
            output[list(group)] = number
        parts = self._scatter(_Reading(read, Route(output, len(groups))), tasks, self.on_read)
        at_once = max(1, self.workers.num_at_once // FAN_OUT)  # groups that keep a large cluster busy
        for first in range(0, len(groups), at_once):
            several = groups[first : first + at_once]
            for number, group in enumerate(several, first):
                jobs, parts[number] = _batches(parts[number]), []
                merging = _Merging(self.workers.fetch, self._windows(group))
                self._write(group, self._scatter(merging, jobs, lambda num_rows: None))

    def _windows(self, shards: Sequence[int]) -> Route:
        output = np.full(self.layout.num_shards, -1, np.int32)
        output[list(shards)] = np.arange(len(shards))
        return Route(output, len(shards) * self.layout.num_windows, self.layout)

    def _scatter(
        self, work: "_Reading | _Merging", jobs: Sequence[Any], on_done: Callable[[int], None]
    ) -> list[list[tuple[Any, float]]]:
        """The pieces of each output: (reference, bytes) of all jobs that have rows for it."""
        parts: list[list[tuple[Any, float]]] = [[] for _ in range(work.route.num_outputs)]
        shared, rest = self.workers.shared(work), iter(jobs)
        running: dict[Any, list[Any]] = {}
        while True:
            while len(running) < self.workers.num_at_once and (job := next(rest, None)) is not None:
                counts, *pieces = self.workers.start(shared, job, num_returns=1 + len(parts))
                running[counts] = pieces
            if not running:
                return parts
            ref = self.workers.finished(list(running))
            num_rows, sizes = self.workers.fetch(ref)
            for part, piece, size in zip(parts, running.pop(ref), sizes):
                if size:
                    part.append((piece, size))
            on_done(num_rows)

    def _write(self, shards: Sequence[int], parts: list[list[tuple[Any, float]]]) -> None:
        """Write shards whose windows are `parts`, in the order of shards."""
        width = self.layout.num_windows
        shared = self.workers.shared(_Writing(self.workers.fetch, self.target, self.layout, self.schema))
        rest = iter(enumerate(shards))
        running: set[Any] = set()
        while True:
            while len(running) < self.workers.num_at_once and (entry := next(rest, None)) is not None:
                at, shard = entry
                windows = [[piece for piece, _ in part] for part in parts[at * width : (at + 1) * width]]
                parts[at * width : (at + 1) * width] = [[] for _ in range(width)]  # the task holds the references
                running.add(self.workers.start(shared, shard, windows)[0])
            if not running:
                return
            ref = self.workers.finished(list(running))
            running.discard(ref)
            self.on_shard(self.workers.fetch(ref))


@dataclass(frozen=True)
class _Reading:
    read: Read
    route: Route

    def __call__(self, task: Any) -> Iterator[Any]:
        yield from self.route.split(self.read(task))


@dataclass(frozen=True)
class _Merging:
    fetch: Callable[[Any], Any]
    route: Route

    def __call__(self, pieces: Sequence[Any]) -> Iterator[Any]:
        yield from self.route.split(pa.concat_tables([self.fetch(piece) for piece in pieces]))


@dataclass(frozen=True)
class _Writing:
    fetch: Callable[[Any], Any]
    target: Store
    layout: Layout
    schema: pa.Schema

    def __call__(self, shard: int, windows: Sequence[Sequence[Any]]) -> ShardFile:
        tables = (pa.concat_tables([self.fetch(piece) for piece in pieces]) for pieces in windows if pieces)
        return shard_writer(self.target, self.layout, self.schema)(shard, tables)


def _batches(pieces: Sequence[tuple[Any, float]]) -> list[list[Any]]:
    """The pieces of a group in lists of about PART_BYTES each."""
    batches: list[list[Any]] = []
    filled = float(PART_BYTES)
    for piece, size in pieces:
        if filled + size > PART_BYTES:
            batches.append([])
            filled = 0.0
        batches[-1].append(piece)
        filled += size
    return batches


def num_windows(num_bytes: float, num_shards: int) -> int:
    """Windows of a shard of a release that takes `num_bytes` in memory."""
    return max(1, -int(-num_bytes // (num_shards * PART_BYTES)))
