"""`gristmill pack URI --to URI`: the release of a run, and the batch work of every release (mixtures:
jobs/release/mixture).

A global shuffle into shards of a stated size, a card, Croissant.
The shuffle is batch work over a whole corpus, so Ray Data does it: every row goes to the shard and place that a hash
of (seed, id) names, so the same corpus and seed give the same bytes on any cluster.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from gristmill.cluster.spec import ClusterSpec
from gristmill.jobs.release.card import about, croissant, dataset_card
from gristmill.jobs.release.formats import ROWS, form_of
from gristmill.jobs.release.mixture.parts import CARD, LEFT_OUT, at_rest
from gristmill.jobs.terminal.bar import Bar
from gristmill.records import ledger
from gristmill.records.errors import UserError
from gristmill.records.readers.parquet import open_parquet, read_parquet
from gristmill.records.schema import REJECT, with_images
from gristmill.records.shards import KEPT, shard_name
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import ray

SHARD, PLACE = "_shard", "_place"
ROW_GROUP_ROWS = 8192
NUM_WEIGHED = 16  # lots whose columns are weighed to know how large the shards of a format become
PLAIN_EVERY_S = 10.0  # of lines of progress where there is no terminal


@dataclass(frozen=True)
class ShardFile:
    """One shard of a release."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


def pack(
    uri: str, to: str, shard_mb: int = 256, seed: int | None = None, dry_run: bool = False, form_name: str = ROWS
) -> int:
    """Write the release of a run, or of a mixture (a TOML file), in a format of jobs/release/formats.py; returns the
    exit code.

    Raises UserError for a run that is not at rest, for a mixture that cannot be made, and for a format that does not
    fit the columns.
    """
    if shard_mb < 1:
        raise UserError("--shard-mb must be at least 1")
    if uri.endswith(".toml"):
        from gristmill.jobs.release.mixture.pack import pack_mixture

        return pack_mixture(uri, to, shard_mb, seed, dry_run, form_name)
    console = Console(stderr=True, highlight=False)
    store, target = open_store(uri), open_store(to)
    store.check(write=False)
    book = at_rest(store)
    check_target(target, write=False)
    lots = ledger.committed(store)
    totals = ledger.totals(store, book, lots)
    if not totals.kept:
        raise UserError(f"{store.uri}: no row was kept, there is nothing to pack")
    with open_parquet(store.open(shard_name(KEPT, 0))) as first:
        rows_schema = first.schema_arrow.remove_metadata()
    rows_schema = pa.schema([f for f in rows_schema if f.name not in LEFT_OUT and f.name != REJECT.name])
    form = form_of(form_name, rows_schema)
    if form:
        rows_schema = pa.schema([rows_schema.field(name) for name in dict.fromkeys(["id", *form.reads])])
    schema = form.schema if form else with_images(rows_schema)
    check_target(target, write=not dry_run)
    share = weighed(store, sorted(lots), rows_schema.names) if form else 1.0
    num_shards = max(1, round(totals.kept_bytes * share / (shard_mb * 2**20)))
    if dry_run:
        told = f"{totals.kept:,} rows would go into {num_shards} shards of {target.uri}"
        Console(highlight=False).print(f"{told}{f', as {form.name}' if form else ''}")
        return 0

    def read(batch: dict[str, np.ndarray]) -> pa.Table:
        tables = []
        for lot in batch["id"].tolist():
            with store.open(shard_name(KEPT, int(lot))) as file:
                table = read_parquet(file, rows_schema.names).select(rows_schema.names)
                tables.append(form.convert(table) if form else table.cast(schema))
        table = pa.concat_tables(tables)
        return placed(table, place(table.column("id").to_pylist(), used_seed), num_shards)

    used_seed = seed or 0
    logger.info(f"packing {totals.kept:,} rows into {num_shards} shards")
    with batch_work(store, target) as here:
        import ray

        numbers = ray.data.range(len(lots), override_num_blocks=min(len(lots), 200))
        rows = numbers.map_batches(read, batch_size=8, batch_format="numpy", **here)
        with Bar(console, "shards", PLAIN_EVERY_S) as bar:
            shards = write_shards(rows, target, num_shards, schema, here, bar)
    if sum(s.num_rows for s in shards) != totals.kept:
        raise RuntimeError(f"{sum(s.num_rows for s in shards)} rows were packed of {totals.kept}")
    card = dataset_card(book, totals, shards, schema, form)
    target.put("croissant.json", json.dumps(croissant(about(book, totals), shards, schema), indent=2).encode())
    target.put(CARD, card.encode())  # last: a release without its card is not finished
    console.print(f"release: {target.uri}  ({num_shards} shards, README.md, croissant.json)", markup=False)
    return 0


def weighed(store: Store, lots: Sequence[int], names: Sequence[str]) -> float:
    """The part of the bytes of kept shards that is in these columns, from some lots."""
    ours, whole = 0, 0
    for lot in lots[:: max(1, len(lots) // NUM_WEIGHED)]:
        with store.open(shard_name(KEPT, lot)) as source, open_parquet(source) as file:
            for group in range(file.metadata.num_row_groups):
                of_group = file.metadata.row_group(group)
                for number in range(of_group.num_columns):
                    column = of_group.column(number)
                    whole += column.total_compressed_size
                    if column.path_in_schema.partition(".")[0] in names:
                        ours += column.total_compressed_size
    return ours / whole if whole else 1.0


def check_target(target: Store, write: bool = True) -> None:
    """Raise UserError when the place of a release is not empty or, with `write`, cannot be written."""
    if write:
        target.check(write=True)
    if next(target.list(), None) is not None:
        raise UserError(f"{target.uri} is not empty; choose another --to")


@contextmanager
def batch_work(*stores: Store) -> Iterator[dict[str, Any]]:
    """A Ray for batch work; yields options for tasks that read or write the stores.

    An error of a task that a user is meant to read is raised as it was there.
    """
    import ray

    from gristmill.cluster.connect import connected
    from gristmill.cluster.node_affinity import near

    with connected(ClusterSpec()):
        # Ray Data tells of its plans at length; what counts is said by us.
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True  # its own wrapping loses the cause
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, and told once
        warnings.filterwarnings("ignore", message=".*ray_remote_args_fn.*")  # named parameters cannot name a node
        here = near(*stores)
        strategy = {"scheduling_strategy": here["scheduling_strategy"]} if here else {}
        try:
            yield {"ray_remote_args_fn": lambda: strategy, "num_cpus": 0} if here else {}
        except (UserError, ray.exceptions.RayError) as error:
            cause = getattr(error, "cause", None) or error  # an error of a task is both, and tells its stack
            if not isinstance(cause, UserError):
                raise
            raise UserError(str(cause).splitlines()[0]) from None  # Ray Data adds lines about its attempts


def gather(work: Callable[[int], dict[str, Any]], num: int, here: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What `work` makes of 0 .. num-1, in the order in which the cluster is done with them."""
    import ray

    numbers = ray.data.range(num, override_num_blocks=min(num, 200))
    found = numbers.map_batches(
        lambda batch: pa.Table.from_pylist([work(int(one)) for one in batch["id"]]),
        batch_size=8,
        batch_format="numpy",
        **here,
    )
    yield from found.iter_rows()


def select(
    tables: Sequence[pa.Table], read: Callable[[pa.Table], pa.Table], here: dict[str, Any]
) -> "ray.data.Dataset":
    """The rows that `read` makes of each of the tables, as a data set."""
    import ray

    return ray.data.from_arrow(list(tables)).map_batches(read, batch_size=None, batch_format="pyarrow", **here)


def placed(table: pa.Table, places: np.ndarray, num_shards: int) -> pa.Table:
    """The rows with the shard and the place in it that they go to."""
    table = table.append_column(SHARD, pa.array((places % np.uint64(num_shards)).astype(np.int32)))
    return table.append_column(PLACE, pa.array(places))


def shard_writer(target: Store, num_shards: int, schema: pa.Schema) -> Callable[[pa.Table], pa.Table]:
    """What puts the rows of one shard, which were `placed`, into `target`, and tells of it in one row."""

    def write(group: pa.Table) -> pa.Table:
        number = group.column(SHARD)[0].as_py()
        order = pc.sort_indices(group, sort_keys=[(PLACE, "ascending"), ("id", "ascending")])
        table = group.take(order).select(schema.names).cast(schema).combine_chunks()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_checksum=True)
        data = sink.getvalue().to_pybytes()
        name = f"train-{number:05d}-of-{num_shards:05d}.parquet"
        target.put(name, data)
        row = {"name": name, "num_rows": table.num_rows, "num_bytes": len(data)}
        return pa.table({k: [v] for k, v in {**row, "sha256": hashlib.sha256(data).hexdigest()}.items()})

    return write


def write_shards(
    rows: "ray.data.Dataset", target: Store, num_shards: int, schema: pa.Schema, here: dict[str, Any], bar: Bar
) -> list[ShardFile]:
    """Write the shards `train-00000-of-0000N.parquet` into `target` from rows that were `placed`."""
    groups = rows.groupby(SHARD, num_partitions=min(num_shards, 64))
    written = groups.map_groups(shard_writer(target, num_shards, schema), batch_format="pyarrow", **here)
    shards: list[ShardFile] = []
    for row in written.iter_rows():
        shards.append(ShardFile(**row))
        bar.show(len(shards), num_shards, f"{len(shards):,} of {num_shards:,} shards written")
    return sorted(shards, key=lambda s: s.name)


def place(ids: Sequence[str], seed: int, person: bytes = b"") -> np.ndarray:
    """uint64 (n,): where in the shuffle each row goes, from its id and the seed alone; `person` names another draw."""
    key = seed.to_bytes(8, "little", signed=True)
    words = [hashlib.blake2b(i.encode(), digest_size=8, key=key, person=person).digest() for i in ids]
    return np.frombuffer(b"".join(words), dtype=np.uint64)
