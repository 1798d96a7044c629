"""`gristmill pack MIX.toml --to URI`: a training mixture of real corpora and runs, under the cap on synthetic rows.

The parts are read twice. The first pass collects what the draw needs of each row (id, length, origin). The second pass
reads the drawn rows and writes them. Texts stay with the workers until they are in shards.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from gristmill.cluster.batch_work import Workers, batch_work
from gristmill.cluster.exchange import PART_BYTES, num_windows
from gristmill.cluster.shuffle import PLACE, SHARD, Layout
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.release.croissant import croissant
from gristmill.jobs.release.facts import FactsFile, missing_facts, release_spec
from gristmill.jobs.release.formats import RowFormat, find_format
from gristmill.jobs.release.mixture.card import (
    facts_of_mixture,
    mixture_card,
    mixture_facts,
    number,
    percent,
    shard_facts,
)
from gristmill.jobs.release.mixture.count import count_mixture
from gristmill.jobs.release.mixture.draw import Candidates, Draw, draw
from gristmill.jobs.release.mixture.files import Chunk
from gristmill.jobs.release.mixture.parts import CARD, METADATA, MIXTURE, Part, complete, find_part
from gristmill.jobs.release.mixture.payload import common_payload
from gristmill.jobs.release.mixture.scan import candidates, checksum, drawn_rows, release_schema, scan
from gristmill.jobs.release.mixture.spec import MixtureSpec, load_mixture
from gristmill.jobs.release.mixture.takedown import leave_out, note_matches
from gristmill.jobs.release.options import PackOptions
from gristmill.jobs.release.takedown.facts import takedown_facts, write_takedown
from gristmill.jobs.release.takedown.trace import Takedown
from gristmill.jobs.release.target import check_target, columns_digest, end
from gristmill.jobs.release.write import Display, Release, Rows, first_row, in_tasks, write_release
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.records.errors import UserError
from gristmill.records.ordered_map import read_ahead
from gristmill.records.printable import json_text
from gristmill.records.spec import literals
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

UNKNOWN_BYTES = 64 << 20  # a chunk of unknown size counts as so many
LOCAL_BYTES = 64 << 20  # of text files whose columns are read before the workers start


def pack_mixture(
    source: TomlSource, target: Store, options: PackOptions, facts_file: FactsFile, takedown: Takedown | None = None
) -> int:
    """Draw the mixture and write its release, in a format of jobs/release/formats.py; returns its rows.

    Raises UserError before anything is written.
    """
    console = open_console(is_error=True)
    spec = load_mixture(source)
    if facts_file.source.license:
        raise UserError("[source] of a facts file is for a run; the parts of a mixture have `license` themselves")
    release = release_spec(literals(spec.release) if spec.release else {}, facts_file)
    spec = spec if options.seed is None else replace(spec, seed=options.seed)
    parts = [find_part(part) for part in spec.parts]
    titles = [part.title for part in parts]
    is_small = sum(chunk.num_bytes for part in parts for chunk in part.untyped) <= LOCAL_BYTES
    if is_small:
        complete_parts(parts, None, console)
        released_columns(parts, spec, options)  # refuses before the target is touched
    if takedown:
        leave_out(parts, takedown)
    if not options.is_dry_run:
        check_target(target)

    stores = [target, *(part.store for part in parts if part.store is not None)]
    with batch_work(*stores) as workers:
        if not is_small:
            complete_parts(parts, workers, console)
        payload, text_column, row_format = released_columns(parts, spec, options)
        chunks = [(number, chunk) for number, part in enumerate(parts) for chunk in part.chunks]
        reader = MixtureRows(parts, chunks, payload, text_column, spec.seed)
        sizes = [chunk.num_bytes or UNKNOWN_BYTES for _, chunk in chunks]
        scans, row_bytes, row_memory = [], np.zeros(len(chunks)), np.zeros(len(chunks))
        with Display(console) as display:
            display.add(0, len(chunks), "chunks of the parts read")
            for _, results in workers.results(reader.scan, in_tasks(enumerate(sizes), len(sizes), workers.num_at_once)):
                for number, result in results:
                    scans.append((number, chunks[number][0], result))
                    row_bytes[number], row_memory[number] = result["bytes"], result["memory"]
                display.add(len(results), len(chunks), "chunks of the parts read")
        if takedown:
            note_matches(takedown, (result for _, _, result in scans))
        rows = candidates(scans)
        for number, title in enumerate(titles):
            if not (rows.part == number).any():
                raise UserError(f"part '{title}' holds no rows{' that are not taken down' if takedown else ''}")
        drawn = draw(rows, spec, titles)
        counts = count_mixture(rows, drawn, titles, text_column is not None)
        if row_format and (drawn.weights != 1).any():
            raise UserError(
                f"the rows have weights (shortfall = 'reweight'), and {row_format.name} has no column for them: choose "
                "another shortfall, or pack as rows"
            )
        facts = mixture_facts(spec, parts, rows, drawn, counts, payload, text_column)
        if row_format:
            facts["made_as"] = row_format.name
        if takedown:
            facts["takedown"] = takedown_facts(takedown)
        num_bytes = float((drawn.times * row_bytes[rows.chunk]).sum())
        num_shards = max(1, round(num_bytes / (options.shard_mb * 2**20)))
        show(facts, num_shards, open_console() if options.is_dry_run else console)
        if options.is_dry_run:
            return int(counts["totals"]["all"]["rows"])
        rows_schema = release_schema(
            payload, text_column is not None, bool((drawn.times > 1).any()), bool((drawn.weights != 1).any())
        )

        schema = row_format.schema if row_format else rows_schema
        layout = Layout(num_shards, num_windows(float((drawn.times * row_memory[rows.chunk]).sum()), num_shards))
        identity = {
            **{
                "mixture": facts["fingerprint"],
                "seed": spec.seed,
                "num_shards": num_shards,
                **options.identity,
            },
            "columns": columns_digest(schema),
            **({"without": takedown.listing.digest} if takedown else {}),
        }
        drawer = DrawnRows(reader, rows_schema, row_format, num_shards)
        pieces = selections(rows, drawn, row_memory)
        drawn_sizes = ((piece, sizes[piece["chunk"]]) for piece in pieces)
        tasks = in_tasks(drawn_sizes, len(pieces), workers.num_at_once)
        num_rows = int(counts["totals"]["all"]["rows"])
        to_write = Release(target, layout, schema, identity)
        shards = write_release(workers, to_write, Rows(tasks, drawer.read, drawer.read, num_rows), console)
    facts["shards"] = shard_facts(shards)
    if takedown:
        write_takedown(target, takedown)
    card_facts = facts_of_mixture(facts, release, parts, row_format)
    card = mixture_card(facts, card_facts, schema, first_row(target, shards), row_format)
    target.put(METADATA, json_text(croissant(card_facts, shards, schema), indent=2).encode())
    target.put(MIXTURE, (json_text(facts, indent=2) + "\n").encode())
    target.put(CARD, card.encode())  # last: it marks the release as complete
    end(target)
    if missing := missing_facts(card_facts):
        logger.info(missing)
    logger.info(f"release: {target.uri}  ({len(shards)} shards, README.md, mixture.json, croissant.json)")
    return num_rows


def complete_parts(parts: Sequence[Part], workers: Workers | None, console: SafeConsole) -> None:
    """Give the parts their columns and row numbers; text files are read for them by the workers, or here."""
    chunks = [(part, chunk) for part in parts for chunk in part.untyped]
    contents = [(pa.schema([]), 0)] * len(chunks)
    reader = Contents(chunks)
    if workers is None:
        contents = reader.read(range(len(chunks)))
    else:
        sizes = ((number, chunk.num_bytes or UNKNOWN_BYTES) for number, (_, chunk) in enumerate(chunks))
        with Display(console) as display:
            display.add(0, len(chunks), "chunks of text files read for their columns")
            for numbers, results in workers.results(reader.read, in_tasks(sizes, len(chunks), workers.num_at_once)):
                for number, content in zip(numbers, results):
                    contents[number] = content
                display.add(len(results), len(chunks), "chunks of text files read for their columns")
    for part in parts:
        complete(part, [content for (owner, _), content in zip(chunks, contents) if owner is part])


@dataclass(frozen=True)
class Contents:
    """Reads chunks of text for their columns and the numbers of their rows."""

    chunks: Sequence[tuple[Part, Chunk]]

    def read(self, numbers: Sequence[int]) -> list[tuple[pa.Schema, int]]:
        def read(number: int) -> tuple[pa.Schema, int]:
            part, chunk = self.chunks[number]
            return part.content_of(chunk)

        return list(read_ahead(self.chunks[numbers[0]][0].store, read, numbers)) if numbers else []


def released_columns(
    parts: Sequence[Part], spec: MixtureSpec, options: PackOptions
) -> tuple[pa.Schema, str | None, RowFormat | None]:
    """(payload, text column, format). Raises UserError for parts that do not fit each other or the format."""
    payload, text_column = common_payload(parts, spec)
    row_format = find_format(options.format_name, payload, not options.without_reasoning)
    if row_format and not spec.payload:
        _check_beside(row_format, parts, payload, not options.without_reasoning)
    return payload, text_column, row_format


def _check_beside(row_format: RowFormat, parts: Sequence[Part], payload: pa.Schema, has_reasoning: bool) -> None:
    """Raise UserError for a column that the format reads where it is, and that only some parts have."""
    for part in parts:
        for field in part.schema:
            if field.name in payload.names:
                continue
            wider = find_format(row_format.name, payload.append(field), has_reasoning)
            if wider and field.name in wider.reads:
                names = ", ".join(f"'{column}'" for column in wider.reads)
                raise UserError(
                    f"part '{part.title}' has a column '{field.name}' that --format {wider.name} reads, and other "
                    f"parts lack it: set payload = [{names}] for nulls there, or leave '{field.name}' out of payload"
                )


@dataclass(frozen=True)
class MixtureRows:
    """Reads the chunks of the parts, many at once."""

    parts: Sequence[Part]
    chunks: Sequence[tuple[int, Chunk]]  # with the number of its part
    payload: pa.Schema
    text_column: str | None
    seed: int

    def scan(self, numbers: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
        """(number, result of `scan`) of each of these chunks."""

        def scan_chunk(number: int) -> tuple[int, dict[str, Any]]:
            part, chunk = self.chunks[number]
            return number, scan(self.parts[part], chunk, self.payload, self.text_column, self.seed)

        return list(read_ahead(self.store_of(numbers[0]), scan_chunk, numbers))

    def store_of(self, number: int) -> Store | None:
        return self.parts[self.chunks[number][0]].store


@dataclass(frozen=True)
class DrawnRows:
    """Reads the drawn rows of chunks as rows of the release."""

    rows: MixtureRows
    schema: pa.Schema
    row_format: RowFormat | None
    num_shards: int

    def read(self, pieces: Sequence[dict[str, Any]]) -> pa.Table:
        """The rows of the pieces (see `selections`) with their targets."""

        def read(piece: dict[str, Any]) -> pa.Table:
            rows = self.rows
            part, chunk = rows.chunks[piece["chunk"]]
            columns = self.schema, rows.payload, rows.text_column
            table = drawn_rows(rows.parts[part], chunk, piece, *columns, rows.seed, self.num_shards)
            return self.row_format.convert(table, keep=(SHARD, PLACE)) if self.row_format else table

        return pa.concat_tables(read_ahead(self.rows.store_of(pieces[0]["chunk"]), read, pieces))


def selections(rows: Candidates, drawn: Draw, row_memory: np.ndarray) -> list[dict[str, Any]]:
    """The drawn rows of each chunk: `chunk`, its `rows` with their `times` and `weights`, and a checksum, `check`.

    A chunk with many rows, such as a compressed file, has several pieces of about PART_BYTES in memory each;
    `row_memory` are the bytes of a row by chunk, float64 (chunks,).
    """
    drawn_at = np.flatnonzero(drawn.times)
    order = drawn_at[np.lexsort((rows.row[drawn_at], rows.chunk[drawn_at]))]
    chunk = rows.chunk[order]
    before = np.r_[0.0, np.cumsum(drawn.times[order] * row_memory[chunk])[:-1]]  # bytes of the rows before each
    starts_chunk = np.r_[True, chunk[1:] != chunk[:-1]]
    chunk_starts = np.maximum.accumulate(np.where(starts_chunk, before, 0.0))
    piece = ((before - chunk_starts) // PART_BYTES).astype(np.int64)
    starts = np.flatnonzero(starts_chunk | np.r_[True, piece[1:] != piece[:-1]])
    return [
        {
            "chunk": int(rows.chunk[indices[0]]),
            "rows": rows.row[indices],
            "times": drawn.times[indices],
            "weights": drawn.weights[indices],
            "check": checksum(rows.keys[indices]),
        }
        for indices in np.split(order, starts[1:])
    ]


def show(facts: dict[str, Any], num_shards: int, console: SafeConsole) -> None:
    """Print the mixture as a table: parts, fractions, and the effect of the shortfall policy."""
    counts, requested, used = facts["counts"], facts["asked"], facts["used"]
    table = Table(title=f"mixture {requested['name']}", title_justify="left", box=None, padding=(0, 2))
    for name in ("part", "rows available", "duplicates", "rows", "tokens"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part in facts["parts"]:
        cells = f"{part['rows_there']:,}", f"{part['duplicates']:,}", f"{part['rows']:,}", number(part["tokens"])
        table.add_row(part["name"], *cells)
    for name, sums in counts["totals"].items():
        table.add_row(name, "", "", f"{sums['rows']:,}", number(sums["tokens"]))
    fractions = counts["fractions"]
    table.add_row("synthetic fraction", "", "", percent(fractions["rows"]), percent(fractions["tokens"]))
    if fractions["rows_by_weight"] is not None:
        table.add_row("by weight", "", "", percent(fractions["rows_by_weight"]), percent(fractions["tokens_by_weight"]))
    console.print(table)
    line = f"cap {requested['synthetic_max']:.4%} by {requested['by']}; policy {requested['shortfall']}"
    if used["policy"]:
        line += f" (used{': ' + ', '.join(used['short_parts']) if used['short_parts'] else ''})"
    line += f"; {counts['effective_rows']:,.1f} effective rows; {num_shards} shards"
    console.print_line(line)
