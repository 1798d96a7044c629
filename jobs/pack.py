"""`gristmill pack URI --to URI`: the release. A global shuffle into shards of a stated size, a card, Croissant.

The shuffle is batch work over a whole corpus, so Ray Data does it: every row goes to the shard and place that a hash
of (seed, id) names, so the same corpus and seed give the same bytes on any cluster.
"""

import hashlib
import json
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from cluster.spec import ClusterSpec
from jobs.card import croissant, dataset_card
from records import ledger, manifest
from records.errors import UserError
from records.parquet import open_parquet, read_parquet
from records.schema import REJECT, with_images
from records.shards import KEPT, shard_name
from records.store import Store, open_store

LEFT_OUT = ("minhash", "image_hash", "row_hash", "duplicate_of", REJECT.name)  # of use inside a run only
SHARD, PLACE = "_shard", "_place"
ROW_GROUP_ROWS = 8192


@dataclass(frozen=True)
class ShardFile:
    """One shard of a release."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


def pack(uri: str, to: str, shard_mb: int, seed: int) -> int:
    """Write the release of a run; returns the exit code. Raises UserError for a run that is not at rest."""
    if shard_mb < 1:
        raise UserError("--shard-mb must be at least 1")
    console = Console(stderr=True, highlight=False)
    store, target = open_store(uri), open_store(to)
    store.check(write=False)
    book = manifest.load(store)
    if book is None:
        raise UserError(f"{store.uri}: no {manifest.NAME} there, so this is not the output of a run")
    if book.state == "running":
        raise UserError(f"{store.uri}: the run is still going on (or was killed); run its produce command to the end")
    target.check(write=True)
    if next(target.list(), None) is not None:
        raise UserError(f"{target.uri} is not empty; choose another --to")
    lots = ledger.committed(store)
    totals = ledger.totals(store, book, lots)
    if not totals.kept:
        raise UserError(f"{store.uri}: no row was kept, there is nothing to pack")
    num_shards = max(1, round(totals.kept_bytes / (shard_mb * 2**20)))
    with open_parquet(store.open(shard_name(KEPT, 0))) as first:
        schema = first.schema_arrow.remove_metadata()
    schema = with_images(pa.schema([f for f in schema if f.name not in LEFT_OUT]))

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(f"packing {totals.kept:,} rows into {num_shards} shards")
    shards = shuffle(store, target, len(lots), num_shards, seed, schema, say)
    if sum(s.num_rows for s in shards) != totals.kept:
        raise RuntimeError(f"{sum(s.num_rows for s in shards)} rows were packed of {totals.kept}")
    card = dataset_card(book, totals, shards, schema)
    target.put("croissant.json", json.dumps(croissant(book, totals, shards, schema), indent=2).encode())
    target.put("README.md", card.encode())  # last: a release without its card is not finished
    console.print(f"release: {target.uri}  ({num_shards} shards, README.md, croissant.json)", markup=False)
    return 0


def shuffle(
    store: Store, target: Store, num_lots: int, num_shards: int, seed: int, schema: pa.Schema, say: Any
) -> list[ShardFile]:
    """Write the shards `train-00000-of-0000N.parquet` into `target`; each row's shard and place hang on (seed, id)."""
    import ray

    from cluster.connect import connected
    from cluster.near import near

    def read(batch: dict[str, np.ndarray]) -> pa.Table:
        tables = []
        for lot in batch["id"].tolist():
            with store.open(shard_name(KEPT, int(lot))) as file:
                tables.append(read_parquet(file, schema.names).cast(schema))
        table = pa.concat_tables(tables)
        places = place(table.column("id"), seed)
        table = table.append_column(SHARD, pa.array((places % np.uint64(num_shards)).astype(np.int32)))
        return table.append_column(PLACE, pa.array(places))

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

    with connected(ClusterSpec(), say):
        # Ray Data tells of its plans at length; what counts is said by us.
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        here = near(store, target)
        warnings.filterwarnings("ignore", message=".*ray_remote_args_fn.*")  # named parameters cannot name a node
        strategy = {"scheduling_strategy": here["scheduling_strategy"]} if here else {}
        place_here = {"ray_remote_args_fn": lambda: strategy, "num_cpus": 0} if here else {}
        lots = ray.data.range(num_lots, override_num_blocks=min(num_lots, 200))
        rows = lots.map_batches(read, batch_size=8, batch_format="numpy", **place_here)
        written = rows.groupby(SHARD, num_partitions=min(num_shards, 64)).map_groups(
            write, batch_format="pyarrow", **place_here
        )
        shards = [ShardFile(**row) for row in written.take_all()]
    return sorted(shards, key=lambda s: s.name)


def place(ids: pa.ChunkedArray, seed: int) -> np.ndarray:
    """uint64 (n,): where in the shuffle each row goes, from its id and the seed alone."""
    key = seed.to_bytes(8, "little", signed=True)
    words = [hashlib.blake2b(i.encode(), digest_size=8, key=key).digest() for i in ids.to_pylist()]
    return np.frombuffer(b"".join(words), dtype=np.uint64)
