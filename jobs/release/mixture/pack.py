"""`gristmill pack MIX.toml --to URI`: a training mixture of real corpora and runs, under the cap on synthetic rows.

The parts are read twice. The first pass collects what the draw needs of each row (id, length, origin). The second pass
reads the drawn rows and writes them. Texts stay with the workers until they are in shards.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from gristmill.cluster.shuffle import PLACE, SHARD, ShardFile, batch_work, gather, select, write_shards
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.release.card import croissant
from gristmill.jobs.release.formats import ROWS, RowFormat, find_format
from gristmill.jobs.release.mixture.card import (
    describe_mixture,
    mixture_card,
    mixture_facts,
    number,
    percent,
    shard_facts,
)
from gristmill.jobs.release.mixture.count import count_mixture
from gristmill.jobs.release.mixture.draw import Candidates, Draw, draw
from gristmill.jobs.release.mixture.parts import CARD, MIXTURE, open_part
from gristmill.jobs.release.mixture.payload import common_payload
from gristmill.jobs.release.mixture.scan import candidates, checksum, drawn_rows, release_schema, scan
from gristmill.jobs.release.mixture.spec import load_mixture
from gristmill.jobs.release.target import check_target
from gristmill.jobs.terminal.bar import Bar
from gristmill.records.errors import UserError
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

CHUNKS_PER_BLOCK = 8  # a block is the work of one task
PLAIN_EVERY_S = 10.0  # between two progress lines where there is no terminal


def pack_mixture(
    source: TomlSource, target: Store, shard_mb: int, seed: int | None, dry_run: bool, format_name: str = ROWS
) -> int:
    """Draw the mixture and write its release, in a format of jobs/release/formats.py; returns its rows.

    Raises UserError before anything is written.
    """
    console = Console(stderr=True, highlight=False)
    spec = load_mixture(source)
    spec = spec if seed is None else replace(spec, seed=seed)
    parts = [open_part(part) for part in spec.parts]
    titles = [part.title for part in parts]
    payload, text_column = common_payload(parts, spec)
    row_format = find_format(format_name, payload)
    if not dry_run:
        check_target(target)

    chunks = [(number, chunk) for number, part in enumerate(parts) for chunk in part.chunks]
    stores = [target, *(part.store for part in parts if part.store is not None)]
    with batch_work(*stores) as task_options:

        def scan_chunk(number: int) -> dict[str, Any]:
            part, chunk = chunks[number]
            return {"chunk": number, **scan(parts[part], chunk, payload, text_column, spec.seed)}

        scans, row_bytes = [], np.zeros(len(chunks))
        with Bar(console, "read", PLAIN_EVERY_S) as bar:
            for result in gather(scan_chunk, len(chunks), task_options):
                scans.append((result["chunk"], chunks[result["chunk"]][0], result))
                row_bytes[result["chunk"]] = result["bytes"]
                bar.show(len(scans), len(chunks), f"{len(scans):,} of {len(chunks):,} chunks of the parts read")
        rows = candidates(scans)
        for number, title in enumerate(titles):
            if not (rows.part == number).any():
                raise UserError(f"part '{title}' holds no rows")
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
        num_bytes = float((drawn.times * row_bytes[rows.chunk]).sum())
        num_shards = max(1, round(num_bytes / (shard_mb * 2**20)))
        show(facts, num_shards, Console(highlight=False) if dry_run else console)
        if dry_run:
            return int(counts["totals"]["all"]["rows"])
        rows_schema = release_schema(
            payload, text_column is not None, bool((drawn.times > 1).any()), bool((drawn.weights != 1).any())
        )

        def read_block(block: pa.Table) -> pa.Table:
            tables = []
            for selection in block.to_pylist():
                part, chunk = chunks[selection["chunk"]]
                columns = rows_schema, payload, text_column
                table = drawn_rows(parts[part], chunk, selection, *columns, spec.seed, num_shards)
                tables.append(row_format.convert(table, keep=(SHARD, PLACE)) if row_format else table)
            return pa.concat_tables(tables)

        schema = row_format.schema if row_format else rows_schema
        with Bar(console, "shards", PLAIN_EVERY_S) as bar:

            def on_shard(num: int) -> None:
                bar.show(num, num_shards, f"{num:,} of {num_shards:,} shards written")

            blocks = select(selections(rows, drawn), read_block, task_options)
            shards = write_shards(blocks, target, num_shards, schema, task_options, on_shard)
    num_rows, expected = sum(shard.num_rows for shard in shards), counts["totals"]["all"]["rows"]
    if num_rows != expected:
        raise RuntimeError(f"packed {num_rows} rows of {expected}")
    facts["shards"] = shard_facts(shards)
    _write_metadata(facts, shards, schema, target, row_format)
    logger.info(f"release: {target.uri}  ({len(shards)} shards, README.md, mixture.json, croissant.json)")
    return num_rows


def _write_metadata(
    facts: dict[str, Any], shards: Sequence[ShardFile], schema: pa.Schema, target: Store, row_format: RowFormat | None
) -> None:
    target.put("croissant.json", json.dumps(croissant(describe_mixture(facts), shards, schema), indent=2).encode())
    target.put(MIXTURE, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
    target.put(CARD, mixture_card(facts, schema, row_format).encode())  # last: it marks the release as complete


def selections(rows: Candidates, drawn: Draw) -> list[pa.Table]:
    """The drawn rows of each chunk, as tables of up to CHUNKS_PER_BLOCK chunks.

    Each table row names a `chunk`, its drawn `rows` with their `times` and `weights`, and a checksum, `check`.
    """
    taken = np.flatnonzero(drawn.times)
    order = taken[np.lexsort((rows.row[taken], rows.chunk[taken]))]
    chunk = rows.chunk[order]
    starts = np.flatnonzero(np.r_[True, chunk[1:] != chunk[:-1]])
    stops = np.r_[starts[1:], len(order)]
    tables = []
    for at in range(0, len(starts), CHUNKS_PER_BLOCK):
        block = slice(at, at + CHUNKS_PER_BLOCK)
        by_chunk = [order[start:stop] for start, stop in zip(starts[block], stops[block])]
        tables.append(
            pa.table(
                {
                    "chunk": pa.array([int(rows.chunk[indices[0]]) for indices in by_chunk], pa.int64()),
                    "rows": pa.array([rows.row[indices] for indices in by_chunk], pa.list_(pa.int32())),
                    "times": pa.array([drawn.times[indices] for indices in by_chunk], pa.list_(pa.int32())),
                    "weights": pa.array([drawn.weights[indices] for indices in by_chunk], pa.list_(pa.float64())),
                    "check": pa.array([checksum(rows.keys[indices]) for indices in by_chunk], pa.int64()),
                }
            )
        )
    return tables


def show(facts: dict[str, Any], num_shards: int, console: Console) -> None:
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
    console.print(line, markup=False, soft_wrap=True)
