"""Reads the claims of committed lots in parallel: from snapshots, else from the signature columns of shards."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from gristmill.cluster.index import snapshots
from gristmill.cluster.index.parts import Part
from gristmill.cluster.index.snapshots import BadSnapshot, Claims, Stretch
from gristmill.cluster.node_affinity import node_options
from gristmill.records.errors import UserError
from gristmill.records.lots import Plan
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import read_columns
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore
from gristmill.stages.dedup.contract import Duplicates

MAX_TASKS = 32  # concurrent readers, each with a stretch of at most snapshots.MAX_BYTES in memory
LOTS_PER_TASK = 64  # without snapshots


@dataclass(frozen=True)
class ClaimSource:
    """Reads the claims of committed lots. Tasks get a copy."""

    store: Store
    plan: Plan
    dedup: Duplicates
    identity: dict[str, Any]  # see snapshots.identity
    snapshot_lots: int  # 0: no snapshots are read or written

    def read(self, stretch: Stretch) -> tuple[Claims, str | None]:
        """The claims of a stretch of lots, and the problem with its snapshot, if any.

        Without a valid snapshot, the claims come from the shards and a new snapshot is written.
        """
        problem = None
        if stretch.name is not None:
            try:
                data = self.store.read(stretch.name)
                return snapshots.decode(data, self.identity, stretch.first, stretch.stop), None
            except (BadSnapshot, OSError) as error:
                problem = f"{self.store.path(stretch.name)}: {error}; its lots were read from their shards"
        claims = self.from_shards(range(stretch.first, stretch.stop))
        if self.snapshot_lots:
            name = snapshots.name_of(stretch.first, stretch.stop)
            try:
                self.store.put(name, snapshots.encode(self.identity, stretch.first, stretch.stop, claims))
            except (UserError, OSError) as error:
                problem = problem or f"{self.store.path(name)}: cannot be written ({error})"
        return claims, problem

    def from_shards(self, lots: Sequence[int]) -> Claims:
        """Band keys uint64 (n, bands) and owners int64 (n,) of the kept rows of committed lots."""
        parts = list(read_ahead(self.store, self._lot, lots))
        parts.append((np.zeros((0, self.dedup.bands), np.uint64), np.zeros(0, np.int64)))
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _lot(self, lot: int) -> Claims:
        columns = ["row", self.dedup.signature]
        table = read_columns(self.store, shard_name(KEPT, lot), columns, self.plan.lot_size)
        owners = lot * self.plan.lot_size + table.column("row").to_numpy().astype(np.int64)
        return self.dedup.keys(table.column(self.dedup.signature)), owners

    def stretches(self, num_lots: int) -> tuple[list[Stretch], int]:
        """The committed lots in pieces for tasks, and an estimate of their rows (0: unknown).

        Deletes unused snapshots. A snapshot beyond the committed lots has claims of rows that no longer exist, because
        the output was truncated. It would look valid once other rows are committed in their place.
        """
        if not self.snapshot_lots:
            return list(snapshots.cut(Stretch(0, num_lots), LOTS_PER_TASK)), 0
        names = snapshots.listed(self.store)
        stretches = snapshots.cover(names, num_lots)
        for name in names.keys() - {s.name for s in stretches}:
            self.store.delete(name)
        # Pieces must fit memory if every row is kept, and there must be several for every core.
        max_lots = snapshots.MAX_BYTES // (snapshots.row_bytes(self.dedup.bands) * self.plan.lot_size)
        share = sum(len(s) for s in stretches if s.name is None) // (4 * num_cores(self.store))
        size = max(1, min(self.snapshot_lots, max_lots, max(share, LOTS_PER_TASK)))
        pieces = [piece for s in stretches for piece in ([s] if s.name else snapshots.cut(s, size))]
        covered = [s for s in stretches if s.name]
        num_rows = sum(names[s.name] for s in covered if s.name) // snapshots.row_bytes(self.dedup.bands)
        return pieces, num_rows * num_lots // max(1, sum(len(s) for s in covered))


_STORES: dict[str, Store] = {}  # of this worker process: creating an S3 client takes half a second


# Ray may retry a lost reader: reading has no side effects.
# Without a CPU of its own: engines, of this run or others, may hold every CPU, and it would wait forever.
@ray.remote(num_cpus=0, max_retries=2, scheduling_strategy="SPREAD")
def claims_task(source: ClaimSource, stretch: Stretch, parts: Sequence[Part]) -> tuple[Any, ...]:
    """(number of rows, problem or None), then for each part of the index (keys uint64 (bands, n), owners)."""
    pa.set_cpu_count(1)
    store = _STORES.setdefault(source.store.uri, source.store)
    claims, problem = replace(source, store=store).read(stretch)
    return (len(claims[1]), problem), *(part.columns(claims) for part in parts)


def num_cores(store: Store) -> int:
    """Cores that can read the store: those of the cluster, or of the driver's node for a local folder."""
    if isinstance(store, LocalStore):
        return os.cpu_count() or 1
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def num_at_once(store: Store) -> int:
    """Maximum number of concurrent stretches: one per core and one more, bounded because each needs memory."""
    return min(num_cores(store) + 1, MAX_TASKS)


def read_back(
    source: ClaimSource, stretches: Sequence[Stretch], parts: Sequence[Part]
) -> Iterator[tuple[Stretch, Any, list[Any]]]:
    """Start a task for each stretch: (stretch, reference to count and problem, references to claims by part).

    Each step of the iteration starts one task, so the caller bounds the number of running tasks.
    """
    run = claims_task.options(num_returns=1 + len(parts), **node_options(source.store))
    shared = ray.put(source)
    for stretch in stretches:
        count_ref, *slices = run.remote(shared, stretch, list(parts))
        yield stretch, count_ref, slices
