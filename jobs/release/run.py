"""The release of a run: all its kept rows, shuffled over all shards."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from gristmill.cluster.batch_work import batch_work
from gristmill.cluster.exchange import num_windows
from gristmill.cluster.shuffle import Layout, shuffle_keys, with_target
from gristmill.jobs.release.card import dataset_card, facts_of_run, run_keywords
from gristmill.jobs.release.croissant import croissant
from gristmill.jobs.release.facts import FactsFile, missing_facts
from gristmill.jobs.release.formats import RowFormat, find_format
from gristmill.jobs.release.mixture.parts import CARD, METADATA, finished_manifest
from gristmill.jobs.release.options import PackOptions
from gristmill.jobs.release.takedown.facts import takedown_facts, takedown_section, write_takedown
from gristmill.jobs.release.takedown.listing import Keys
from gristmill.jobs.release.takedown.trace import Takedown
from gristmill.jobs.release.target import check_target, columns_digest, end
from gristmill.jobs.release.write import PLAIN_EVERY_S, Release, Rows, first_row, in_tasks, write_release
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.records.errors import UserError
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output import ledger
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import read_columns, read_footer
from gristmill.records.printable import json_text
from gristmill.records.schema import release_columns, with_images
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

NUM_WEIGHED = 16  # lots that are read to estimate the size of shards in a format, and of rows in memory
WEIGHED_BYTES = 16 << 20  # of these lots, in their shards
MANY_LOTS = 10_000  # whose listing shows progress


def pack_run(
    uri: str, target: Store, options: PackOptions, facts_file: FactsFile, takedown: Takedown | None = None
) -> int:
    """Write the release of a run; returns its rows.

    Raises UserError for a run that has not ended, and for a format that does not fit the columns.
    """
    console = open_console(is_error=True)
    store = open_store(uri)
    store.check(write=False)
    manifest = finished_manifest(store)
    lots = _listed(store, manifest, console)
    totals = ledger.totals(store, manifest, lots)
    manifest.recount(totals)
    if not totals.kept:
        raise UserError(f"{store.uri}: the run kept no row, so there is nothing to pack")
    rows_schema = read_footer(store, shard_name(KEPT, 0)).schema.to_arrow_schema().remove_metadata()
    rows_schema = pa.schema([rows_schema.field(name) for name in release_columns(rows_schema)])
    row_format = find_format(options.format_name, rows_schema, not options.without_reasoning)
    if row_format:
        rows_schema = pa.schema([rows_schema.field(name) for name in dict.fromkeys(["id", *row_format.reads])])
    schema = row_format.schema if row_format else with_images(rows_schema)
    facts = facts_of_run(manifest, totals, facts_file, row_format.task if row_format else None)
    check_target(target, write=not options.is_dry_run)
    traced = takedown.trace(store) if takedown else None
    num_rows = totals.kept - (len(traced.rows) if traced else 0)
    facts = replace(facts, keywords=run_keywords(manifest, num_rows))
    if takedown and traced:
        takedown.leave_out(traced)
    if not num_rows:
        raise UserError(f"{store.uri}: every kept row is on the take-down list or made from one that is")
    share = column_share(store, sorted(lots), rows_schema.names) if row_format else 1.0
    share *= num_rows / totals.kept
    num_shards = max(1, round(totals.kept_bytes * share / (options.shard_mb * 2**20)))
    if options.is_dry_run:
        as_format = f", as {row_format.name}" if row_format else ""
        text = f"{num_rows:,} rows would go into {num_shards} shards of {target.uri}{as_format}"
        open_console().print(text, markup=False, soft_wrap=True)
        return num_rows

    seed, lot_size, removal = options.seed or 0, totals.asks // len(lots), traced.keys if traced else None
    reader = RunRows(store, rows_schema.names, schema, row_format, lot_size, seed, num_shards, removal)
    swelling = reader.swelling(lots)
    layout = Layout(num_shards, num_windows(totals.kept_bytes * swelling, num_shards))
    release = Release(
        target,
        layout,
        schema,
        {
            **{"run": manifest.fingerprint, "lots": len(lots), "kept": totals.kept, "kept_bytes": totals.kept_bytes},
            **{"seed": seed, "num_shards": num_shards, "format": options.format_name},
            "columns": columns_digest(schema),
            **({"without": takedown.listing.digest} if takedown else {}),
        },
    )
    logger.info(f"packing {num_rows:,} rows into {num_shards} shards")
    with batch_work(store, target) as workers:
        sizes = ((Lot(number, size), size * swelling) for number, size in sorted(lots.items()))
        tasks = in_tasks(sizes, len(lots), workers.num_at_once)
        rows = Rows(tasks, reader.read, reader.read_ids, num_rows)
        shards = write_release(workers, release, rows, console)
    section = takedown_section(takedown_facts(takedown)) if takedown else ""
    card = dataset_card(manifest, totals, facts, shards, schema, first_row(target, shards), row_format, section)
    if takedown:
        write_takedown(target, takedown)
    target.put(METADATA, json_text(croissant(facts, shards, schema), indent=2).encode())
    target.put(CARD, card.encode())  # last: the card marks the release as complete
    end(target)
    if missing := missing_facts(facts):
        logger.info(missing)
    logger.info(f"release: {target.uri}  ({num_shards} shards, README.md, croissant.json)")
    return num_rows


def _listed(store: Store, manifest: Manifest, console: SafeConsole) -> dict[int, int]:
    """The committed lots with the sizes of their shards; says so where it takes a while."""
    num_lots = manifest.totals.num_lots
    if num_lots < MANY_LOTS:
        return ledger.committed(store, manifest)
    logger.info(f"listing {num_lots:,} lots of {store.uri}")
    with Bar(console, "listed", PLAIN_EVERY_S) as bar:

        def show(num: int) -> None:
            bar.show(num, max(num, num_lots), f"{num:,} of {num_lots:,} shards listed")

        return ledger.committed(store, manifest, on_listed=show)


@dataclass(frozen=True)
class Lot:
    """A lot, and the bytes of its kept shard."""

    number: int
    num_bytes: int


@dataclass(frozen=True)
class RunRows:
    """Reads the kept rows of a run as rows of the release, many lots at once."""

    store: Store
    names: Sequence[str]  # of the columns that are read
    schema: pa.Schema
    row_format: RowFormat | None
    lot_size: int
    seed: int
    num_shards: int
    removal: Keys | None = None  # ids of the rows of a take-down

    def read(self, lots: Sequence[Lot]) -> pa.Table:
        """The rows of lots with their targets. Raises UnreadableShard."""
        table = self._columns(lots, self.names)
        return self._targeted(self.row_format.convert(table) if self.row_format else table.cast(self.schema))

    def read_ids(self, lots: Sequence[Lot]) -> pa.Table:
        """The ids of the same rows with their targets."""
        return self._targeted(self._columns(lots, ["id"]))

    def swelling(self, lots: Mapping[int, int]) -> float:
        """Bytes in memory for each byte of a shard, estimated from all rows of some lots."""
        sample: list[Lot] = []
        for number in sorted(lots)[:: max(1, len(lots) // NUM_WEIGHED)]:
            if not sample or sum(lot.num_bytes for lot in sample) + lots[number] <= WEIGHED_BYTES:
                sample.append(Lot(number, lots[number]))
        return replace(self, removal=None).read(sample).nbytes / sum(lot.num_bytes for lot in sample)

    def _columns(self, lots: Sequence[Lot], names: Sequence[str]) -> pa.Table:
        def read(lot: Lot) -> pa.Table:
            table = read_columns(self.store, shard_name(KEPT, lot.number), names, self.lot_size).select(names)
            if not self.removal:
                return table
            return table.filter(pa.array(~self.removal.has(table.column("id").to_pylist())))

        return pa.concat_tables(read_ahead(self.store, read, lots))

    def _targeted(self, table: pa.Table) -> pa.Table:
        return with_target(table, shuffle_keys(table.column("id").to_pylist(), self.seed), self.num_shards)


def column_share(store: Store, lots: Sequence[int], names: Sequence[str]) -> float:
    """Share of these columns in the bytes of the kept shards, estimated from some lots."""
    selected, total = 0, 0
    sample = lots[:: max(1, len(lots) // NUM_WEIGHED)]
    for footer in read_ahead(store, lambda lot: read_footer(store, shard_name(KEPT, lot)), sample):
        for group in range(footer.num_row_groups):
            row_group = footer.row_group(group)
            for number in range(row_group.num_columns):
                column = row_group.column(number)
                total += column.total_compressed_size
                if column.path_in_schema.partition(".")[0] in names:
                    selected += column.total_compressed_size
    return selected / total if total else 1.0
