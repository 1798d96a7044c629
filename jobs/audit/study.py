"""`gristmill audit` of a study: plans all mixtures again and compares them with the output."""

import math

import pyarrow as pa

from gristmill.generators.chains.cells import Cell, Unit
from gristmill.generators.chains.loop import MIX
from gristmill.generators.chains.work import ROWS, UNITS, read_unit, rows_name, stored_rows, unit_name
from gristmill.generators.families.contract import stream
from gristmill.jobs.audit.findings import Findings
from gristmill.jobs.study.plan import recorded_chains
from gristmill.jobs.study.results import RESULTS, cell_table
from gristmill.jobs.study.spec import expand
from gristmill.jobs.study.study_file import NAME, read_study, recorded_spec
from gristmill.records.errors import UserError
from gristmill.records.mixing.mixing import plan
from gristmill.records.mixing.regimes import REAL, SYNTHETIC, Source
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_reading import UnreadableShard, read_footer, read_shard
from gristmill.records.stores.contract import Store

TOLERANCE = 1e-9


def examine_study(store: Store, data: bytes) -> Findings:
    """Checks that every unit is present, that each generation was trained on the mixture that its regime gives for the
    rows of earlier units, that no synthetic share exceeds its cap, and that results.parquet equals the units.

    `data` is study.json. Raises UserError when it cannot be read.
    """
    where = store.path(NAME)
    study_file = read_study(data, where)
    if "ended" not in study_file:
        raise UserError(f"{where} is not the file of a finished study: it states no end")
    spec, state = recorded_spec(study_file, where), study_file["ended"]["state"]
    findings, cells = Findings(), recorded_chains(expand(spec, "study.json"), study_file)
    failed = set(study_file["ended"]["failed"])
    stored = {entry.name for entry in store.list(UNITS)}
    present: list[Unit] = []
    for cell in cells:
        for unit in cell.units():
            if unit_name(unit.key) not in stored:
                if state == "complete" or not failed:
                    findings.add(f"{unit_name(unit.key)} is missing: {cell.name}, block {unit.block}")
                break
            present.append(unit)
    done: dict[int, dict[str, int]] = {}
    for unit, table in zip(present, read_ahead(store, lambda unit: _table(unit, store), present)):
        if unit.first == 1:
            done = {}
        _unit(unit, table, done, findings)
        findings.count("units", 1)
    try:
        _results(cells, store, findings)
    except UserError as error:  # a file that cannot be read
        findings.add(str(error))
    _rows(store, stored, state, findings)
    findings.count("cells", len(cells))
    return findings


def _rows(store: Store, stored: set[str], state: str, findings: Findings) -> None:
    """Each file of rows belongs to the unit that names it, and holds the bytes of its name."""
    names = [entry.name for entry in store.list(ROWS)]
    for fault in read_ahead(store, lambda name: _fault_of_rows(store, name, stored, state), names):
        if fault:
            findings.add(fault)


def _fault_of_rows(store: Store, name: str, stored: set[str], state: str) -> str | None:
    key = name.rpartition("/")[2].partition("-")[0]
    if unit_name(key) not in stored:
        return f"{name} has no unit: its generation is not committed" if state == "complete" else None
    try:
        named = stored_rows(key, read_footer(store, unit_name(key)).metadata or {})
    except UnreadableShard:
        return None  # named with its unit
    if name != named:
        return f"{name}: {unit_name(key)} names {named}, so no unit has these rows"
    if named != f"{ROWS}/{key}" and rows_name(key, store.read(named)) != named:
        return f"{named}: altered after it was written (its bytes do not match its name)"
    return None


def _table(unit: Unit, store: Store) -> pa.Table | str:
    """The table of a unit, or what is wrong with it."""
    try:
        table = read_unit(store, unit.key)
    except UserError as error:
        return str(error)
    return f"{unit_name(unit.key)} is missing" if table is None else table


def _unit(unit: Unit, table: pa.Table | str, done: dict[int, dict[str, int]], findings: Findings) -> None:
    """Plan each generation of the unit again. `done` holds the counts of earlier generations."""
    cell, at = unit.cell, unit.cell.regime_at
    if isinstance(table, str):
        findings.add(table)
        return
    for generation in range(unit.first, unit.last + 1):
        where = f"{cell.name}, block {unit.block}, generation {generation}"
        start = (generation - unit.first) * cell.width
        rows = table.slice(start, cell.width)
        if rows.num_rows != cell.width or set(rows.column("generation").to_pylist()) != {generation}:
            findings.add(f"{where}: the unit does not hold one row for each of {cell.width} chains")
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
            for stored in rows.column(name).unique().to_pylist():
                is_number = isinstance(value, int | float) and isinstance(stored, int | float)
                if not (math.isclose(stored, value, abs_tol=TOLERANCE) if is_number else stored == value):
                    findings.add(f"{where}: {name} is {stored}, expected {value}")
        share = max(rows.column("synthetic_share").to_pylist())
        if share > regime.synthetic_max + TOLERANCE:
            findings.add(f"{where}: the synthetic share {share:.4f} exceeds the cap {regime.synthetic_max}")
        done[generation] = {name: rows.column(name)[0].as_py() for name in ("num_new", "num_made", "num_kept")}
        findings.count("mixtures", 1)


def _results(cells: list[Cell], store: Store, findings: Findings) -> None:
    """Compare results.parquet with the units, cell by cell."""
    try:
        num_groups = read_footer(store, RESULTS).num_row_groups
        results = read_shard(store, RESULTS)
    except UnreadableShard as error:
        findings.add(f"{error.name}: {error.reason}")
        return
    if num_groups < len(cells):
        findings.add(f"{RESULTS} holds {num_groups} of {len(cells)} cells")
        return
    start = 0
    tables = read_ahead(store, lambda cell: _cell_table(cell, store), cells)
    for cell, expected in zip(cells, tables):
        if expected is None:
            return  # the unit is named already
        part = results.slice(start, expected.num_rows)
        start += expected.num_rows
        for name in expected.column_names:
            if name not in part.column_names or not _is_same(part.column(name), expected.column(name)):
                findings.add(f"{RESULTS}: column {name} of cell '{cell.name}' differs from its units")
    if start != results.num_rows:
        findings.add(f"{RESULTS} holds {results.num_rows:,} rows, the units hold {start:,}")
    findings.count("rows", results.num_rows)


def _cell_table(cell: Cell, store: Store) -> pa.Table | None:
    try:
        return cell_table(cell, store)
    except UserError:
        return None


def _is_same(stored: pa.ChunkedArray, expected: pa.ChunkedArray) -> bool:
    """Whether two columns hold the same values; a dictionary counts as its texts."""
    left, right = stored.combine_chunks(), expected.combine_chunks()
    if pa.types.is_dictionary(right.type):
        right = right.cast(pa.string())
        left = left.cast(pa.string()) if pa.types.is_dictionary(left.type) else left
    return left.type == right.type and (left.equals(right) or left.to_pylist() == right.to_pylist())
