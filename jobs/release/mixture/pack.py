"""`gristmill pack MIX.toml --to URI`: a training mixture of real corpora and runs, under the cap on synthetic rows.

Two passes over the parts: the first notes of each row what the draw needs (id, length, origin), the second makes the
rows that were drawn. Texts never come together anywhere but in the shards.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from gristmill.jobs.release.card import croissant
from gristmill.jobs.release.command import (
    PLACE,
    PLAIN_EVERY_S,
    SHARD,
    batch_work,
    check_target,
    gather,
    select,
    write_shards,
)
from gristmill.jobs.release.formats import ROWS, Form, form_of
from gristmill.jobs.release.mixture.card import about_mixture, mixture_card, mixture_facts, number, percent, shard_facts
from gristmill.jobs.release.mixture.count import counted
from gristmill.jobs.release.mixture.draw import Candidates, Drawn, draw
from gristmill.jobs.release.mixture.parts import CARD, MIXTURE, open_part
from gristmill.jobs.release.mixture.payload import payload_of
from gristmill.jobs.release.mixture.scan import candidates, checksum, release_schema, released, scan
from gristmill.jobs.release.mixture.spec import load_mix
from gristmill.jobs.terminal.bar import Bar
from gristmill.records.errors import UserError
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

BLOCK_CHUNKS = 8  # of one task


def pack_mixture(path: str, to: str, shard_mb: int, seed: int | None, dry_run: bool, form_name: str = ROWS) -> int:
    """Draw the mixture and write its release, in a format of jobs/release/formats.py; returns the exit code.

    Raises UserError before anything is written.
    """
    console = Console(stderr=True, highlight=False)
    spec = load_mix(path)
    spec = spec if seed is None else replace(spec, seed=seed)
    target = open_store(to)
    check_target(target, write=False)
    parts = [open_part(part) for part in spec.parts]
    payload, text_column = payload_of(parts, spec)
    form = form_of(form_name, payload)
    if not dry_run:
        check_target(target)

    chunks = [(number, chunk) for number, part in enumerate(parts) for chunk in part.chunks]
    stores = [target, *(part.store for part in parts if part.store is not None)]
    with batch_work(*stores) as here:

        def look(number: int) -> dict[str, object]:
            part, chunk = chunks[number]
            return {"chunk": number, **scan(parts[part], chunk, payload, text_column, spec.seed)}

        found, sizes = [], np.zeros(len(chunks))
        with Bar(console, "read", PLAIN_EVERY_S) as bar:
            for one in gather(look, len(chunks), here):
                found.append((one["chunk"], chunks[one["chunk"]][0], one))
                sizes[one["chunk"]] = one["bytes"]
                bar.show(len(found), len(chunks), f"{len(found):,} of {len(chunks):,} pieces of the parts read")
        rows = candidates(found)
        for number, part in enumerate(parts):
            if not (rows.part == number).any():
                raise UserError(f"part '{part.title}' holds no rows")
        drawn = draw(rows, spec, [part.title for part in parts])
        counts = counted(rows, drawn, [part.title for part in parts], text_column is not None)
        if form and (drawn.weights != 1).any():
            raise UserError(
                f"the rows got weights (shortfall = 'reweight'), and {form.name} has no place for them: choose another "
                "shortfall, or pack as rows"
            )
        facts = mixture_facts(spec, parts, rows, drawn, counts, payload, text_column)
        if form:
            facts["made_as"] = form.name
        num_bytes = float((drawn.times * sizes[rows.chunk]).sum())
        num_shards = max(1, round(num_bytes / (shard_mb * 2**20)))
        show(facts, num_shards, Console(highlight=False) if dry_run else console)
        if dry_run:
            return 0
        rows_schema = release_schema(
            payload, text_column is not None, bool((drawn.times > 1).any()), bool((drawn.weights != 1).any())
        )

        def make(block: pa.Table) -> pa.Table:
            tables = []
            for taken in block.to_pylist():
                part, chunk = chunks[taken["chunk"]]
                told = taken, rows_schema, payload, text_column, spec.seed, num_shards
                table = released(parts[part], chunk, *told)
                tables.append(form.convert(table, keep=(SHARD, PLACE)) if form else table)
            return pa.concat_tables(tables)

        schema = form.schema if form else rows_schema
        with Bar(console, "shards", PLAIN_EVERY_S) as bar:
            shards = write_shards(select(selection(rows, drawn), make, here), target, num_shards, schema, here, bar)
    told = counts["totals"]["all"]["rows"]
    if sum(s.num_rows for s in shards) != told:
        raise RuntimeError(f"{sum(s.num_rows for s in shards)} rows were packed of {told}")
    facts["shards"] = shard_facts(shards)
    _papers(facts, shards, schema, target, form)
    logger.info(f"release: {target.uri}  ({len(shards)} shards, README.md, mixture.json, croissant.json)")
    return 0


def _papers(facts: dict, shards: Sequence, schema: pa.Schema, target: Store, form: Form | None) -> None:
    target.put("croissant.json", json.dumps(croissant(about_mixture(facts), shards, schema), indent=2).encode())
    target.put(MIXTURE, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
    target.put(CARD, mixture_card(facts, schema, form).encode())  # last: a release without its card is not finished


def selection(rows: Candidates, drawn: Drawn) -> list[pa.Table]:
    """What is taken of each chunk, some chunks a table."""
    taken = np.flatnonzero(drawn.times)
    order = taken[np.lexsort((rows.row[taken], rows.chunk[taken]))]
    chunk = rows.chunk[order]
    starts = np.flatnonzero(np.r_[True, chunk[1:] != chunk[:-1]])
    ends = np.r_[starts[1:], len(order)]
    tables = []
    for at in range(0, len(starts), BLOCK_CHUNKS):
        own = [order[start:end] for start, end in zip(starts[at : at + BLOCK_CHUNKS], ends[at : at + BLOCK_CHUNKS])]
        tables.append(
            pa.table(
                {
                    "chunk": pa.array([int(rows.chunk[rows_of[0]]) for rows_of in own], pa.int64()),
                    "rows": pa.array([rows.row[o] for o in own], pa.list_(pa.int32())),
                    "times": pa.array([drawn.times[o] for o in own], pa.list_(pa.int32())),
                    "weights": pa.array([drawn.weights[o] for o in own], pa.list_(pa.float64())),
                    "check": pa.array([checksum(rows.keys[o]) for o in own], pa.int64()),
                }
            )
        )
    return tables


def show(facts: dict, num_shards: int, console: Console) -> None:
    """The mixture as a table: parts, fractions, what the policy did."""
    counts, asked = facts["counts"], facts["asked"]
    table = Table(title=f"mixture {asked['name']}", title_justify="left", box=None, padding=(0, 2))
    for name in ("part", "rows there", "duplicates", "rows", "tokens"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part in facts["parts"]:
        cells = f"{part['rows_there']:,}", f"{part['duplicates']:,}", f"{part['rows']:,}", number(part["tokens"])
        table.add_row(part["name"], *cells)
    for name, sums in counts["totals"].items():
        table.add_row(name, "", "", f"{sums['rows']:,}", number(sums["tokens"]))
    fractions = counts["fractions"]
    table.add_row("synthetic fraction", "", "", percent(fractions["rows"]), percent(fractions["tokens"]))
    if fractions["rows_by_weight"] is not None:
        shares = percent(fractions["rows_by_weight"]), percent(fractions["tokens_by_weight"])
        table.add_row("by weight", "", "", *shares)
    console.print(table)
    used = facts["used"]["policy"]
    told = f"cap {asked['synthetic_max']:.4%} by {asked['by']}; policy {asked['shortfall']}"
    told += (
        f" (used{': ' + ', '.join(facts['used']['short_parts']) if facts['used']['short_parts'] else ''})"
        if used
        else ""
    )
    told += f"; {counts['effective_rows']:,.1f} effective rows; {num_shards} shards"
    console.print(told, markup=False, soft_wrap=True)
