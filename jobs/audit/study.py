"""`gristmill audit` of a study: all mixtures planned anew and held against what stands in the output."""

import io
import json
import math

import pyarrow as pa

from gristmill.generators.chains.cells import Cell, Unit
from gristmill.generators.chains.loop import MIX
from gristmill.generators.chains.work import ROWS, UNITS, unit_name
from gristmill.generators.families.contract import stream
from gristmill.jobs.audit.command import Findings
from gristmill.jobs.study.plan import recorded_chains
from gristmill.jobs.study.results import RESULTS, cell_table
from gristmill.jobs.study.spec import StudySpec, expand
from gristmill.records.errors import UserError
from gristmill.records.mixing.mixing import plan
from gristmill.records.mixing.regimes import REAL, SYNTHETIC, Source
from gristmill.records.readers.parquet import open_parquet, read_parquet
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store

TOLERANCE = 1e-9


def examine_study(store: Store, data: bytes) -> Findings:
    """Every unit is there; each generation was trained on what its regime comes to, given the rows that the units
    before it say they left; no share is above its cap; results.parquet holds what the units hold.

    `data` is study.json. Raises UserError when that cannot be read.
    """
    try:
        book = json.loads(data)
        spec = build(StudySpec, book["study"], "study.json")
        state = book["ended"]["state"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{store.path('study.json')} cannot be read as a study that has ended ({error})") from None
    findings, cells = Findings(), recorded_chains(expand(spec, "study.json"), book)
    failed = set(book["ended"]["failed"])
    there = {entry.name for entry in store.list(UNITS)}
    for cell in cells:
        done: dict[int, dict[str, int]] = {}
        for unit in cell.units():
            if unit.first == 1:
                done = {}
            if unit_name(unit.key) not in there:
                if state == "complete" or not failed:
                    findings.add(f"{unit_name(unit.key)} is missing: {cell.name}, block {unit.block}")
                break
            _unit(unit, store, done, findings)
            findings.count("units", 1)
    _results(cells, store, findings)
    for entry in store.list(ROWS):
        if f"{UNITS}/{entry.name.rpartition('/')[2]}.parquet" not in there and state == "complete":
            findings.add(f"{entry.name} has no unit: its generation was never committed")
    findings.count("cells", len(cells))
    return findings


def _unit(unit: Unit, store: Store, done: dict[int, dict[str, int]], findings: Findings) -> None:
    """Plan each of its generations again; `done` holds the facts of those before, by generation."""
    cell, at = unit.cell, unit.cell.regime_at
    table = read_parquet(io.BytesIO(store.read(unit_name(unit.key))))
    for generation in range(unit.first, unit.last + 1):
        where = f"{cell.name}, block {unit.block}, generation {generation}"
        start = (generation - unit.first) * cell.width
        rows = table.slice(start, cell.width)
        if rows.num_rows != cell.width or set(rows.column("generation").to_pylist()) != {generation}:
            findings.add(f"{where}: its unit does not hold one row for each of {cell.width} chains")
            return
        counts = {}
        for k, before in done.items():
            if before["num_new"]:
                counts[Source(REAL, k)] = before["num_new"]
            wanted = at(k + 1).num_made(k, cell.n)
            counts[Source(SYNTHETIC, k)] = before["num_kept"] if cell.gates else min(wanted, before["num_made"])
        regime = at(generation)
        mixture = plan(regime, generation, cell.n, counts, cell.width, stream(cell.seed, unit.block, generation, MIX))
        for name, value in mixture.facts().items():
            for told in rows.column(name).unique().to_pylist():
                is_number = isinstance(value, int | float) and isinstance(told, int | float)
                if not (math.isclose(told, value, abs_tol=TOLERANCE) if is_number else told == value):
                    findings.add(f"{where}: {name} is told as {told} and comes to {value}")
        share = max(rows.column("synthetic_share").to_pylist())
        if share > regime.synthetic_max + TOLERANCE:
            findings.add(f"{where}: a synthetic share of {share:.4f} is above {regime.synthetic_max}")
        done[generation] = {name: rows.column(name)[0].as_py() for name in ("num_new", "num_made", "num_kept")}
        findings.count("mixtures", 1)


def _results(cells: list[Cell], store: Store, findings: Findings) -> None:
    """results.parquet cell by cell against the units."""
    data = store.read_if_there(RESULTS)
    if data is None:
        findings.add(f"{RESULTS} is missing")
        return
    with open_parquet(io.BytesIO(data), check_pages=True) as file:
        if file.num_row_groups < len(cells):
            findings.add(f"{RESULTS} holds {file.num_row_groups} cells of {len(cells)}")
            return
        told = file.read(use_threads=False)
    start = 0
    for cell in cells:
        own = cell_table(cell, store)
        held = told.slice(start, own.num_rows)
        start += own.num_rows
        for name in own.column_names:
            left, right = held.column(name).combine_chunks(), own.column(name).combine_chunks()
            if pa.types.is_dictionary(right.type):
                left, right = left.cast(pa.string()), right.cast(pa.string())
            if not left.cast(right.type).equals(right) and left.to_pylist() != right.to_pylist():
                findings.add(f"{RESULTS}: column {name} of cell '{cell.name}' is not what its units hold")
    if start != told.num_rows:
        findings.add(f"{RESULTS} holds {told.num_rows:,} rows, the units {start:,}")
    findings.count("rows", told.num_rows)
