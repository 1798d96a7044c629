"""Where each row of a release goes, and how a shard is written.

A hash of (seed, id) decides the shard of each row and its place there. The same rows and seed therefore give the same
bytes on any cluster. This file needs no Ray.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.sealed import write_sealed
from gristmill.records.stores.contract import Store

SHARD, PLACE = "_shard", "_place"  # columns that `with_target` adds and `shard_writer` removes
ROW_GROUP_ROWS = 8192


@dataclass(frozen=True)
class ShardFile:
    """One shard of a release."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Layout:
    """The shards of a release, and the windows in which a shard is sorted: ranges of places, in memory one by one."""

    num_shards: int
    num_windows: int = 1

    def name(self, shard: int) -> str:
        return f"train-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def window(self, places: np.ndarray) -> np.ndarray:
        """The window of each place, uint64 (n,): int64 (n,). Places are hashes, so windows have about equal sizes."""
        return ((places >> np.uint64(32)) * np.uint64(self.num_windows) >> np.uint64(32)).astype(np.int64)


def shuffle_keys(ids: Sequence[str], seed: int, person: bytes = b"") -> np.ndarray:
    """Position of each row in the shuffle, from its id and the seed alone: uint64 (n,).

    `person` personalises the hash (BLAKE2b), so that another draw from the same ids is independent.
    """
    key = seed.to_bytes(8, "little", signed=True)
    digests = [hashlib.blake2b(i.encode(), digest_size=8, key=key, person=person).digest() for i in ids]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def with_target(table: pa.Table, keys: np.ndarray, num_shards: int) -> pa.Table:
    """The table with columns for the target shard, int32, and the place in it, uint64, from `shuffle_keys`."""
    table = table.append_column(SHARD, pa.array((keys % np.uint64(num_shards)).astype(np.int32)))
    return table.append_column(PLACE, pa.array(keys))


def shard_writer(target: Store, layout: Layout, schema: pa.Schema) -> Callable[[int, Iterable[pa.Table]], ShardFile]:
    """A function that writes one shard: its number, and the rows of each of its windows in any order.

    The bytes do not depend on the number of windows. One window is in memory at a time, and the encoded shard.
    """

    def write(shard: int, windows: Iterable[pa.Table]) -> ShardFile:
        num_rows = 0

        def sorted_rows() -> Iterator[pa.Table]:
            nonlocal num_rows
            for table in windows:
                order = pc.sort_indices(table, sort_keys=[(PLACE, "ascending"), ("id", "ascending")])
                num_rows += table.num_rows
                table = table.take(order).select(schema.names).cast(schema)
                yield table
                del table, order  # a window is not held while the next is fetched

        data = write_sealed(_row_groups(sorted_rows(), schema), ROW_GROUP_ROWS, compression="zstd")
        target.put(layout.name(shard), data)
        return ShardFile(layout.name(shard), num_rows, len(data), hashlib.sha256(data).hexdigest())

    return write


def _row_groups(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables of whole row groups, but for the last."""
    rest, is_empty = pa.Table.from_batches([], schema), True
    for table in tables:
        table = pa.concat_tables([rest, table])
        whole = table.num_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS
        rest = table.take(pa.array(np.arange(whole, table.num_rows)))  # a copy, so that the window is freed
        for at in range(0, whole, ROW_GROUP_ROWS):
            is_empty = False
            yield table.slice(at, ROW_GROUP_ROWS).combine_chunks()
        del table
    if rest.num_rows or is_empty:
        yield rest.combine_chunks()


@dataclass(frozen=True)
class RowCounts:
    """Rows of each shard, and the sum of the checksums of their ids: int64 (num_shards,) each."""

    rows: np.ndarray
    sums: np.ndarray

    def __add__(self, other: "RowCounts") -> "RowCounts":
        return RowCounts(self.rows + other.rows, self.sums + other.sums)


def count_rows(ids: Sequence[str], shards: np.ndarray, num_shards: int) -> RowCounts:
    """Count the rows of each shard; `shards` is the shard of each row."""
    sums = np.zeros(num_shards, np.int64)
    np.add.at(sums, shards, np.array([crc32(i.encode()) for i in ids], np.int64))
    return RowCounts(np.bincount(shards, minlength=num_shards).astype(np.int64), sums)
