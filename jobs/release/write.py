"""Writes the shards of a release: those that are missing. Finished shards are proven and kept."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from gristmill.cluster.batch_work import Workers
from gristmill.cluster.exchange import PART_BYTES, Exchange
from gristmill.cluster.shuffle import SHARD, Layout, RowCounts, ShardFile, count_rows
from gristmill.jobs.release.target import abandon, begin
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.records.errors import UserError
from gristmill.records.readers.parquet import open_parquet
from gristmill.records.sealed import check_whole
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

PLAIN_EVERY_S = 10.0  # between two progress lines where there is no terminal
TASKS_PER_WORKER = 4  # so that all end at about the same time
MAX_ITEMS = 512  # of a task: progress is shown by task

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """The rows of a release, in pieces that tasks read."""

    tasks: Sequence[Any]
    read: Callable[[Any], pa.Table]  # a task -> rows with their targets, see `with_target`
    read_ids: Callable[[Any], pa.Table]  # a task -> at least the ids of the same rows and their shards
    num_rows: int


@dataclass(frozen=True)
class Release:
    """A release to write."""

    target: Store
    layout: Layout
    schema: pa.Schema
    identity: dict[str, Any]  # what decides its bytes


class Display:
    """Shows one phase after another: what is done, how fast, and the time left."""

    def __init__(self, console: SafeConsole) -> None:
        self._console, self._phase = console, ""
        self._stack, self._bar = ExitStack(), Bar(console, "pack", PLAIN_EVERY_S)
        self._done = 0

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def add(self, num: int, total: int, what: str) -> None:
        """`num` more of `total` are done in the phase `what`, e.g. "rows read"."""
        if what != self._phase:
            self._stack.close()
            self._bar, self._phase, self._done = Bar(self._console, what, PLAIN_EVERY_S), what, 0
            self._stack.enter_context(self._bar)
        self._done += num
        elapsed_s = time.monotonic() - self._bar.started
        speed = f", {self._done / elapsed_s:,.1f}/s" if elapsed_s > 1 and self._done else ""
        self._bar.show(self._done, total, f"{self._done:,} of {total:,} {what}{speed}")


def in_tasks(sizes: Iterable[tuple[T, float]], num_items: int, num_workers: int) -> list[list[T]]:
    """Items in lists of at most PART_BYTES in memory, several lists for each worker; `sizes`: (item, bytes)."""
    most = max(1, min(MAX_ITEMS, -(-num_items // (TASKS_PER_WORKER * num_workers))))
    tasks: list[list[T]] = []
    filled = 0.0
    for item, size in sizes:
        if not tasks or len(tasks[-1]) >= most or filled + size > PART_BYTES:
            tasks.append([])
            filled = 0.0
        tasks[-1].append(item)
        filled += size
    return tasks


def write_release(workers: Workers, release: Release, rows: Rows, console: SafeConsole) -> list[ShardFile]:
    """Write the shards that are missing; returns all shards, in order.

    Raises UserError when the target holds the begun release of another command.
    """
    layout, target = release.layout, release.target
    is_begun = begin(target, release.identity)
    with _nothing_left(target), Display(console) as display:
        shards = _finished(workers, release, rows, display) if is_begun else {}
        missing = [number for number in range(layout.num_shards) if number not in shards]

        def on_read(num_rows: int) -> None:
            display.add(num_rows, total, "rows read")

        def on_shard(shard: ShardFile) -> None:
            target.record(shard.name, shard.num_bytes, shard.sha256)
            written.append(shard)
            display.add(1, len(missing), "shards written")

        written: list[ShardFile] = []
        exchange = Exchange(workers, target, layout, release.schema, on_read, on_shard)
        total = rows.num_rows * max(1, len(exchange.passes(missing, len(rows.tasks))))
        display.add(0, total, "rows read")
        exchange.run(rows.read, rows.tasks, missing)
    whole = sorted([*shards.values(), *written], key=lambda shard: (len(shard.name), shard.name))
    if (num_rows := sum(shard.num_rows for shard in whole)) != rows.num_rows:
        raise RuntimeError(f"packed {num_rows} rows of {rows.num_rows}")
    return whole


@contextmanager
def _nothing_left(target: Store) -> Iterator[None]:
    """A pack that fails before its first shard leaves the target empty."""
    try:
        yield
    except BaseException:
        with suppress(UserError, OSError):
            if next(target.list("train-"), None) is None:
                abandon(target)
        raise


def _finished(workers: Workers, release: Release, rows: Rows, display: Display) -> dict[int, ShardFile]:
    """The shards of the target that are whole and hold the rows that they should, by number."""
    layout = release.layout
    numbers = {layout.name(number): number for number in range(layout.num_shards)}
    present = [numbers[entry.name] for entry in release.target.list("train-") if entry.name in numbers]
    if not present:
        return {}
    expected = RowCounts(np.zeros(layout.num_shards, np.int64), np.zeros(layout.num_shards, np.int64))
    for task, counts in workers.results(partial(_counts, rows.read_ids, layout.num_shards), rows.tasks):
        expected += counts
        display.add(len(task), sum(map(len, rows.tasks)), "pieces counted")
    shards: dict[int, ShardFile] = {}
    for number, proof in workers.results(partial(prove, release.target, layout, release.schema), present):
        display.add(1, len(present), "finished shards proven")
        if proof is not None and (proof[0].num_rows, proof[1]) == (expected.rows[number], expected.sums[number]):
            shards[number] = proof[0]
        else:
            logger.warning(f"{release.target.path(layout.name(number))}: not the shard of this release; written again")
    logger.info(f"{release.target.uri}: going on after {len(shards):,} of {layout.num_shards:,} shards")
    return shards


def _counts(read_ids: Callable[[Any], pa.Table], num_shards: int, task: Any) -> RowCounts:
    table = read_ids(task)
    return count_rows(table.column("id").to_pylist(), table.column(SHARD).to_numpy(), num_shards)


def prove(target: Store, layout: Layout, schema: pa.Schema, number: int) -> tuple[ShardFile, int] | None:
    """The facts of a finished shard and the sum of the checksums of its ids; None unless it is whole and fits.

    Where the store vouches for the digest, only the ids are read.
    """
    name = layout.name(number)
    try:
        digest = target.sha256(name)
        if digest is None:
            data = target.read(name)
            check_whole(data)
            source, size, digest = pa.BufferReader(data), len(data), hashlib.sha256(data).hexdigest()
        else:
            source, size = target.open(name), int(target.version(name).partition("-")[0])
        with open_parquet(source) as file:
            if not file.schema_arrow.equals(schema):
                return None
            ids = [i for group in _id_groups(file) for i in group]
    except (OSError, ValueError):  # a store in trouble is a UserError, and ends the pack
        return None
    return ShardFile(name, len(ids), size, digest), int(count_rows(ids, np.zeros(len(ids), np.int64), 1).sums[0])


def first_row(target: Store, shards: Sequence[ShardFile]) -> dict[str, Any]:
    """The first row of the shards, as Python values. A shard may be empty where rows are few and large."""
    shard = next(shard for shard in shards if shard.num_rows)
    with target.open(shard.name) as source, open_parquet(source, where=target.path(shard.name)) as file:
        batch = next(file.iter_batches(batch_size=1, row_groups=[0], use_threads=False))
    row: dict[str, Any] = batch.to_pylist()[0]
    return row


def _id_groups(file: Any) -> Iterator[list[str]]:
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, columns=["id"], use_threads=False).column(0).to_pylist()
