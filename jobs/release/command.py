"""`gristmill pack URI --to URI`: the release of a run or of a mixture (jobs/release/mixture).

A release holds the rows in globally shuffled shards of a stated size, a dataset card and Croissant metadata.
"""

import json
import logging
from collections.abc import Sequence

import pyarrow as pa
from rich.console import Console

from gristmill.cluster.shuffle import batch_work, numbered_dataset, shuffle_keys, with_target, write_shards
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.release.card import croissant, dataset_card, describe_run
from gristmill.jobs.release.formats import ROWS, find_format
from gristmill.jobs.release.mixture.pack import pack_mixture
from gristmill.jobs.release.mixture.parts import CARD, RUN_COLUMNS, finished_manifest
from gristmill.jobs.release.target import check_target, release_target
from gristmill.jobs.results import Result
from gristmill.jobs.terminal.bar import Bar
from gristmill.records.errors import UserError
from gristmill.records.output import ledger
from gristmill.records.output.shards import KEPT, shard_name
from gristmill.records.readers.parquet import open_parquet, read_parquet
from gristmill.records.schema import REJECT, with_images
from gristmill.records.shipped import shipped_file
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

NUM_WEIGHED = 16  # lots whose column sizes are read to estimate the size of shards in a format
PLAIN_EVERY_S = 10.0  # between two progress lines where there is no terminal


def command(
    uri: str, to: str, shard_mb: int = 256, seed: int | None = None, dry_run: bool = False, format_name: str = ROWS
) -> int:
    """`gristmill pack`; see `pack`. With `dry_run`, count everything and write nothing."""
    _pack(uri, to, shard_mb, seed, dry_run, format_name)
    return 0


def pack(source: TomlSource, to: str, shard_mb: int = 256, seed: int | None = None, format_name: str = ROWS) -> Result:
    """Write the release of a run, or of a mixture (a TOML file or its tables), in a format of jobs/release/formats.py.

    Raises UserError for a run that has not ended, for a mixture that its policy refuses, and for a format that does
    not fit the columns.
    """
    num_rows = _pack(source, to, shard_mb, seed, False, format_name)
    return Result(open_store(to).uri, "complete", {"rows": num_rows}, row_names={"rows": "train-"})


def _pack(source: TomlSource, to: str, shard_mb: int, seed: int | None, dry_run: bool, format_name: str) -> int:
    """Pack a run or a mixture; returns the rows of the release."""
    if shard_mb < 1:
        raise UserError("--shard-mb must be at least 1")
    with release_target(to) as target:
        if isinstance(source, str) and not (source.endswith(".toml") or shipped_file(source)):
            return pack_run(source, target, shard_mb, seed or 0, dry_run, format_name)
        return pack_mixture(source, target, shard_mb, seed, dry_run, format_name)


def pack_run(uri: str, target: Store, shard_mb: int, seed: int, dry_run: bool, format_name: str) -> int:
    """Write the release of a run; see `pack`. Returns its rows."""
    console = Console(stderr=True, highlight=False)
    store = open_store(uri)
    store.check(write=False)
    manifest = finished_manifest(store)
    lots = ledger.committed(store)
    totals = ledger.totals(store, manifest, lots)
    if not totals.kept:
        raise UserError(f"{store.uri}: the run kept no row, so there is nothing to pack")
    with open_parquet(store.open(shard_name(KEPT, 0))) as first:
        rows_schema = first.schema_arrow.remove_metadata()
    rows_schema = pa.schema([f for f in rows_schema if f.name not in RUN_COLUMNS and f.name != REJECT.name])
    row_format = find_format(format_name, rows_schema)
    if row_format:
        rows_schema = pa.schema([rows_schema.field(name) for name in dict.fromkeys(["id", *row_format.reads])])
    schema = row_format.schema if row_format else with_images(rows_schema)
    check_target(target, write=not dry_run)
    share = column_share(store, sorted(lots), rows_schema.names) if row_format else 1.0
    num_shards = max(1, round(totals.kept_bytes * share / (shard_mb * 2**20)))
    if dry_run:
        as_format = f", as {row_format.name}" if row_format else ""
        text = f"{totals.kept:,} rows would go into {num_shards} shards of {target.uri}{as_format}"
        Console(highlight=False).print(text, markup=False, soft_wrap=True)
        return totals.kept

    def read(lot: int) -> pa.Table:
        with store.open(shard_name(KEPT, lot)) as file:
            table = read_parquet(file, rows_schema.names).select(rows_schema.names)
        table = row_format.convert(table) if row_format else table.cast(schema)
        return with_target(table, shuffle_keys(table.column("id").to_pylist(), seed), num_shards)

    logger.info(f"packing {totals.kept:,} rows into {num_shards} shards")
    with batch_work(store, target) as task_options, Bar(console, "shards", PLAIN_EVERY_S) as bar:

        def on_shard(num: int) -> None:
            bar.show(num, num_shards, f"{num:,} of {num_shards:,} shards written")

        rows = numbered_dataset(len(lots), read, task_options)
        shards = write_shards(rows, target, num_shards, schema, task_options, on_shard)
    num_rows = sum(shard.num_rows for shard in shards)
    if num_rows != totals.kept:
        raise RuntimeError(f"packed {num_rows} rows of {totals.kept}")
    card = dataset_card(manifest, totals, shards, schema, row_format)
    metadata = croissant(describe_run(manifest, totals), shards, schema)
    target.put("croissant.json", json.dumps(metadata, indent=2).encode())
    target.put(CARD, card.encode())  # last: the card marks the release as complete
    logger.info(f"release: {target.uri}  ({num_shards} shards, README.md, croissant.json)")
    return num_rows


def column_share(store: Store, lots: Sequence[int], names: Sequence[str]) -> float:
    """Share of these columns in the bytes of the kept shards, estimated from some lots."""
    selected, total = 0, 0
    for lot in lots[:: max(1, len(lots) // NUM_WEIGHED)]:
        with store.open(shard_name(KEPT, lot)) as source, open_parquet(source) as file:
            for group in range(file.metadata.num_row_groups):
                row_group = file.metadata.row_group(group)
                for number in range(row_group.num_columns):
                    column = row_group.column(number)
                    total += column.total_compressed_size
                    if column.path_in_schema.partition(".")[0] in names:
                        selected += column.total_compressed_size
    return selected / total if total else 1.0
