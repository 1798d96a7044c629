"""Batch work over whole corpora with Ray Data: read pieces, shuffle rows globally, write shards.

A hash of (seed, id) decides the shard of each row and its place there. The same rows and seed therefore give the same
bytes on any cluster. Ray is imported inside functions: `shuffle_keys` and `with_target` serve callers without Ray.
"""

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.cluster.spec import ClusterSpec
from gristmill.records.errors import UserError
from gristmill.records.sealed import write_sealed
from gristmill.records.stores.contract import Store

if TYPE_CHECKING:
    import ray

SHARD, PLACE = "_shard", "_place"  # columns that `with_target` adds and `shard_writer` removes
ROW_GROUP_ROWS = 8192
PIECES_PER_TASK = 8
MAX_BLOCKS = 200  # of a data set of piece numbers
MAX_PARTITIONS = 64  # of the shuffle


@dataclass(frozen=True)
class ShardFile:
    """One shard of a release."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


@contextmanager
def batch_work(*stores: Store) -> Iterator[dict[str, Any]]:
    """Connect to Ray for batch work; yields options for the tasks that read or write `stores`.

    A UserError of a task is raised as a UserError with its first line.
    """
    import ray

    from gristmill.cluster.connect import connected
    from gristmill.cluster.node_affinity import node_options

    with connected(ClusterSpec()):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # callers report progress
        context.raise_original_map_exception = True  # Ray Data's own wrapping loses the cause
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, and need no log line
        warnings.filterwarnings("ignore", message=".*ray_remote_args_fn.*")  # named parameters cannot name a node
        options = node_options(*stores)
        strategy = {"scheduling_strategy": options["scheduling_strategy"]} if options else {}
        try:
            yield {"ray_remote_args_fn": lambda: strategy, "num_cpus": 0} if options else {}
        except (UserError, ray.exceptions.RayError) as error:
            cause = getattr(error, "cause", None) or error  # a task's error is both types and includes its stack
            if not isinstance(cause, UserError):
                raise
            raise UserError(str(cause).splitlines()[0]) from None  # Ray Data adds lines about its attempts


def numbered_dataset(num: int, read: Callable[[int], pa.Table], task_options: dict[str, Any]) -> "ray.data.Dataset":
    """The rows of `read(0)` to `read(num - 1)` as a data set, in no particular order."""
    import ray

    numbers = ray.data.range(num, override_num_blocks=min(num, MAX_BLOCKS))
    return numbers.map_batches(
        lambda batch: pa.concat_tables([read(int(number)) for number in batch["id"]]),
        batch_size=PIECES_PER_TASK,
        batch_format="numpy",
        **task_options,
    )


def gather(work: Callable[[int], dict[str, Any]], num: int, task_options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield `work(0)` to `work(num - 1)` in the order in which the cluster finishes them."""
    yield from numbered_dataset(num, lambda number: pa.Table.from_pylist([work(number)]), task_options).iter_rows()


def select(
    tables: Sequence[pa.Table], read: Callable[[pa.Table], pa.Table], task_options: dict[str, Any]
) -> "ray.data.Dataset":
    """The rows that `read` makes of each table, as a data set."""
    import ray

    blocks = ray.data.from_arrow(list(tables))
    return blocks.map_batches(read, batch_size=None, batch_format="pyarrow", **task_options)


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


def shard_writer(target: Store, num_shards: int, schema: pa.Schema) -> Callable[[pa.Table], pa.Table]:
    """A function that writes the rows of one shard (see `with_target`) and returns its ShardFile as one row."""

    def write(group: pa.Table) -> pa.Table:
        number = group.column(SHARD)[0].as_py()
        order = pc.sort_indices(group, sort_keys=[(PLACE, "ascending"), ("id", "ascending")])
        table = group.take(order).select(schema.names).cast(schema).combine_chunks()
        data = write_sealed(table, ROW_GROUP_ROWS, compression="zstd")
        name = f"train-{number:05d}-of-{num_shards:05d}.parquet"
        target.put(name, data)
        row = {"name": name, "num_rows": table.num_rows, "num_bytes": len(data)}
        return pa.table({k: [v] for k, v in {**row, "sha256": hashlib.sha256(data).hexdigest()}.items()})

    return write


def write_shards(
    rows: "ray.data.Dataset",
    target: Store,
    num_shards: int,
    schema: pa.Schema,
    task_options: dict[str, Any],
    on_shard: Callable[[int], None],
) -> list[ShardFile]:
    """Write rows (see `with_target`) as `train-00000-of-0000N.parquet` into `target`; returns the shards by name.

    Calls `on_shard` with the number of shards written so far.
    """
    groups = rows.groupby(SHARD, num_partitions=min(num_shards, MAX_PARTITIONS))
    written = groups.map_groups(shard_writer(target, num_shards, schema), batch_format="pyarrow", **task_options)
    shards: list[ShardFile] = []
    for row in written.iter_rows():
        shards.append(ShardFile(**row))
        on_shard(len(shards))
    return sorted(shards, key=lambda shard: shard.name)
