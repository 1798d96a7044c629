"""The claims of committed lots, read back in parallel: from snapshots, else from the signature columns of shards."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from gristmill.cluster.index import snapshots
from gristmill.cluster.index.snapshots import BadSnapshot, Claims, Stretch
from gristmill.cluster.node_affinity import node_options
from gristmill.records.errors import UserError
from gristmill.records.lots import Plan
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.shards import KEPT, shard_name
from gristmill.records.stores.contract import LocalStore, Store
from gristmill.stages.dedup.contract import Duplicates

MAX_TASKS = 32  # reading at once, each with a stretch of at most snapshots.MAX_BYTES in memory
NUM_READS = 8  # shards that a task fetches at once from a store with a delay
WHOLE_BELOW = 8192  # rows a lot below which a remote shard is fetched whole: one request, where columns take four
LOTS_PER_TASK = 64  # where snapshots are off


@dataclass(frozen=True)
class ClaimSource:
    """Where the claims of committed lots are read from."""

    store: Store
    plan: Plan
    dedup: Duplicates
    whose: dict[str, Any]  # see snapshots.identity
    snapshot_lots: int  # 0: no snapshots are read or written

    def read(self, stretch: Stretch) -> tuple[Claims, str | None]:
        """The claims of a stretch of lots, and what was wrong with its snapshot.

        Where there is none, or a bad one, the shards are read and the snapshot is written anew.
        """
        word = None
        if stretch.name is not None:
            try:
                data = self.store.read(stretch.name)
                return snapshots.decode(data, self.whose, stretch.first, stretch.stop), None
            except (BadSnapshot, OSError) as error:
                word = f"{self.store.path(stretch.name)}: {error}; its lots were read from their shards"
        claims = self.from_shards(range(stretch.first, stretch.stop))
        if self.snapshot_lots:
            name = snapshots.name_of(stretch.first, stretch.stop)
            try:
                self.store.put(name, snapshots.encode(self.whose, stretch.first, stretch.stop, claims))
            except (UserError, OSError) as error:
                word = word or f"{self.store.path(name)}: cannot be written ({error})"
        return claims, word

    def from_shards(self, lots: Sequence[int]) -> Claims:
        """Band keys uint64 (n, bands) and owners int64 (n,) of the kept rows of committed lots."""
        parts = [self._lot(lot) for lot in lots[:1]]  # the first opens the client that the others share
        if isinstance(self.store, LocalStore):
            parts += [self._lot(lot) for lot in lots[1:]]
        else:
            with ThreadPoolExecutor(NUM_READS) as threads:
                parts += threads.map(self._lot, lots[1:])
        parts.append((np.zeros((0, self.dedup.bands), np.uint64), np.zeros(0, np.int64)))
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _lot(self, lot: int) -> Claims:
        name = shard_name(KEPT, lot)
        is_whole = not isinstance(self.store, LocalStore) and self.plan.lot_size < WHOLE_BELOW
        source = pa.BufferReader(self.store.read(name)) if is_whole else self.store.open(name)
        with source:
            table = read_parquet(source, ["row", self.dedup.signature])
        owners = lot * self.plan.lot_size + table.column("row").to_numpy().astype(np.int64)
        return self.dedup.keys(table.column(self.dedup.signature)), owners

    def stretches(self, num_lots: int) -> tuple[list[Stretch], int]:
        """The committed lots in pieces for tasks, and about how many rows they hold (0: not known).

        Deletes the snapshots that are of no use.

        One that reaches beyond the committed lots is of rows that are no more (somebody has cut the output), and would
        be believed once other rows are committed in their place.
        """
        if not self.snapshot_lots:
            return list(snapshots.cut(Stretch(0, num_lots), LOTS_PER_TASK)), 0
        names = snapshots.listed(self.store)
        stretches = snapshots.cover(names, num_lots)
        for name in names.keys() - {s.name for s in stretches}:
            self.store.delete(name)
        # Pieces small enough for memory even if every row was kept, and for every core to have some.
        most = snapshots.MAX_BYTES // (snapshots.row_bytes(self.dedup.bands) * self.plan.lot_size)
        share = sum(len(s) for s in stretches if s.name is None) // (4 * num_cores(self.store))
        size = max(1, min(self.snapshot_lots, most, max(share, LOTS_PER_TASK)))
        pieces = [piece for s in stretches for piece in ([s] if s.name else snapshots.cut(s, size))]
        told = [s for s in stretches if s.name]
        num_rows = sum(names[s.name] for s in told if s.name) // snapshots.row_bytes(self.dedup.bands)
        return pieces, num_rows * num_lots // max(1, sum(len(s) for s in told))


_STORES: dict[str, Store] = {}  # of this worker process: an S3 client takes half a second to make


# Ray retries a lost reader by itself: reading changes nothing.
@ray.remote(num_cpus=1, max_retries=2)
def claims_task(source: ClaimSource, stretch: Stretch, bands: Sequence[slice]) -> tuple[Any, ...]:
    """(number of rows, a word or None), then for each slice of the bands (keys uint64 (bands, n), owners)."""
    pa.set_cpu_count(1)
    store = _STORES.setdefault(source.store.uri, source.store)
    (keys, owners), word = replace(source, store=store).read(stretch)
    return (len(owners), word), *((np.ascontiguousarray(keys[:, part].T), owners) for part in bands)


def num_cores(store: Store) -> int:
    """Cores that can read the store: the cluster's, or for a folder the driver's node's."""
    if isinstance(store, LocalStore):
        return os.cpu_count() or 1
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def num_at_once(store: Store) -> int:
    """How many stretches may be under way: one a core and one more, bounded as each takes memory."""
    return min(num_cores(store) + 1, MAX_TASKS)


def read_back(
    source: ClaimSource, stretches: Sequence[Stretch], bands: Sequence[slice]
) -> Iterator[tuple[Stretch, Any, list[Any]]]:
    """Start a task for each stretch: (stretch, reference to its count and word, references to claims by bands).

    A task is started when its answer is asked for: the caller bounds how many are under way.
    """
    run = claims_task.options(num_returns=1 + len(bands), **node_options(source.store))
    shared = ray.put(source)
    for stretch in stretches:
        told, *slices = run.remote(shared, stretch, list(bands))
        yield stretch, told, slices
