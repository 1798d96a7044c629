"""Results of a study: one row per chain and generation (results.parquet); one per cell, generation and measure
(summary.parquet)."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.work import EXHIBITS, FIRST_COLUMNS, SECONDS, read_unit, unit_facts
from gristmill.jobs.study.laws import PASSED, law_curves
from gristmill.records.errors import UserError
from gristmill.records.readers.parquet import check_types, read_parquet
from gristmill.records.stores.contract import Store

RESULTS, SUMMARY = "results.parquet", "summary.parquet"
FACTS = (
    "num_rows", "num_real", "num_synthetic", "synthetic_share", "effective_rows", "shortfall",
    "num_new", "num_made", "num_kept",
)  # fmt: skip
SUMMARY_SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("regime", pa.string()),
        ("generation", pa.int32()),
        ("measure", pa.string()),
        ("num_chains", pa.int32()),
        ("mean", pa.float64()),
        ("deviation", pa.float64()),
        ("standard_error", pa.float64()),
        ("median", pa.float64()),
        ("q05", pa.float64()),
        ("q95", pa.float64()),
        ("law", pa.float64()),
        ("z", pa.float64()),
    ]
)


def read_summary(store: Store) -> pa.Table | None:
    """summary.parquet; None where there is none. Raises UserError when it is not what `write_results` writes."""
    data = store.read_if_there(SUMMARY)
    if data is None:
        return None
    where = store.path(SUMMARY)
    table = read_parquet(io.BytesIO(data), where=where)
    if not table.schema.remove_metadata().equals(SUMMARY_SCHEMA):
        raise UserError(f"{where}: its columns are not those of a summary")
    check_types(table, {name: SUMMARY_SCHEMA.field(name).type for name in ("cell", "generation", "measure")}, where)
    return table


def measures_of(table: pa.Table) -> list[str]:
    """The names of the measure columns."""
    fixed = {*FIRST_COLUMNS, *FACTS, "cell", "regime"}
    return [name for name in table.column_names if name not in fixed and not name.startswith("at_")]


def cell_table(cell: Cell, store: Store) -> pa.Table:
    """One row per chain and generation, in the order of the chains. Failed units are missing."""
    parts, keys = [], set()
    for unit in cell.units():
        table = read_unit(store, unit.key) if unit.key not in keys else None
        keys.add(unit.key)
        if table is None:
            continue
        table = table.replace_schema_metadata(None)
        chains = table.column("chain").to_numpy() + unit.block * cell.width
        table = table.set_column(0, "chain", pa.array(chains, pa.int32()))
        parts.append(table.filter(pa.array(chains < cell.chains)))
    if not parts:
        return pa.table({"chain": pa.array([], pa.int32()), "generation": pa.array([], pa.int32())})
    table = pa.concat_tables(parts, promote_options="default")
    num = table.num_rows
    for at, (address, value) in enumerate(cell.varied.items()):
        name = f"at_{address.replace('.', '_')}"
        table = table.add_column(at, name, pa.array([value] * num))
    for name, value in (("regime", cell.regime_name), ("cell", cell.name)):
        table = table.add_column(0, name, pa.array([value] * num).dictionary_encode())
    return _with_passage(cell, table.sort_by([("chain", "ascending"), ("generation", "ascending")]))


def _with_passage(cell: Cell, table: pa.Table) -> pa.Table:
    """Adds passed_half to one-dimensional normal chains: whether the variance has been below half of the truth."""
    if cell.kind != "gaussian" or cell.family().facts()["dims"] != 1 or table.num_rows % cell.generations:
        return table
    if "variance" not in table.column_names:  # the audit finds that results.parquet and the units differ
        return table
    variances = table.column("variance").to_numpy().reshape(-1, cell.generations)
    passed = (np.minimum.accumulate(variances, axis=1) < 0.5).astype(np.float64)
    return table.append_column(PASSED, pa.array(passed.ravel()))


def exhibits(cell: Cell, store: Store) -> dict[int, dict[str, Any]]:
    """{generation: exhibit} of the first chain of the cell, for families with exhibits."""
    by_generation: dict[int, dict[str, Any]] = {}
    for unit in cell.units():
        if unit.block:
            break
        table = read_unit(store, unit.key)
        if table is not None:
            shown = unit_facts(table, EXHIBITS)
            by_generation |= {int(generation): exhibit for generation, exhibit in shown.items()}
    return by_generation


@dataclass
class CellCost:
    """Work of a cell."""

    cell: str
    num_units: int
    num_shared: int  # units that an earlier cell shares, which are counted there
    num_fits: int  # models fitted
    seconds: float = 0.0


def costs(cells: Sequence[Cell], store: Store) -> list[CellCost]:
    """The work of each cell, from the seconds of its units."""
    earlier: set[str] = set()
    rows = []
    for cell in cells:
        keys = dict.fromkeys(unit.key for unit in cell.units())
        row = CellCost(cell.name, len(keys), len(earlier & set(keys)), cell.chains * cell.generations)
        for key in keys:
            table = read_unit(store, key) if key not in earlier else None
            if table is not None:
                row.seconds += unit_facts(table, SECONDS)
        earlier |= set(keys)
        rows.append(row)
    return rows


def write_results(cells: Sequence[Cell], store: Store) -> pa.Table:
    """Write results.parquet and summary.parquet, and return the summary. The bytes depend on the units alone."""
    sink, writer, rows = io.BytesIO(), None, []
    for cell in cells:
        table = cell_table(cell, store)
        if writer is None:
            writer = pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(_conform(table, writer.schema))
        rows += list(summary_rows(cell, table))
    if writer is not None:
        writer.close()
    summary = pa.Table.from_pylist(rows, SUMMARY_SCHEMA)
    summary_sink = io.BytesIO()
    pq.write_table(summary, summary_sink, compression="zstd")
    store.put(RESULTS, sink.getvalue())
    store.put(SUMMARY, summary_sink.getvalue())
    return summary


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of the first cell. A cell whose chains all failed has few columns."""
    arrays = [
        table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.table(arrays, schema=schema)


def summary_rows(cell: Cell, table: pa.Table) -> Iterator[dict[str, Any]]:
    """Mean, spread and quantiles over chains of each measure in each generation, with the law and z."""
    from gristmill.evaluation.laws.precision import check

    curves = law_curves(cell)
    of_generation = table.column("generation").to_numpy()
    order = np.argsort(of_generation, kind="stable")
    ends = np.searchsorted(of_generation[order], np.arange(1, cell.generations + 2))
    for measure in measures_of(table):
        values = table.column(measure).to_numpy(zero_copy_only=False)[order]
        curve = curves.get(measure)
        for k in range(1, cell.generations + 1):
            here = values[ends[k - 1] : ends[k]]
            finite = here[np.isfinite(here)]
            num = len(finite)
            row: dict[str, Any] = {"cell": cell.name, "regime": cell.regime_name, "generation": k}
            row |= {"measure": measure, "num_chains": num}
            if num:
                deviation = float(finite.std(ddof=1)) if num > 1 else math.nan
                low, middle, high = np.quantile(finite, [0.05, 0.5, 0.95])
                row |= {"mean": float(finite.mean()), "deviation": deviation, "median": float(middle)}
                row |= {"standard_error": deviation / math.sqrt(num), "q05": float(low), "q95": float(high)}
            if curve is not None:
                row["law"] = float(curve.expected[k - 1])
                if curve.is_tested[k - 1] and num > 1 and num == len(here):
                    deviation = float(curve.deviation[k - 1])
                    row["z"] = check(finite, row["law"], None if math.isnan(deviation) else deviation).z
            yield row
