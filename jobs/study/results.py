"""What a study came to: one row a chain and generation (results.parquet), and one a cell, generation and measure."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.work import FIRST_COLUMNS, SECONDS, SHOWN, unit_name
from gristmill.jobs.study.laws import PASSED, lines
from gristmill.records.readers.parquet import read_parquet
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


def measures_of(table: pa.Table) -> list[str]:
    """The columns that are measures."""
    fixed = {*FIRST_COLUMNS, *FACTS, "cell", "regime"}
    return [name for name in table.column_names if name not in fixed and not name.startswith("at_")]


def cell_table(cell: Cell, store: Store) -> pa.Table:
    """One row a chain and generation, chains in their order; units that failed are missing."""
    parts, seen = [], set()
    for unit in cell.units():
        data = store.read_if_there(unit_name(unit.key)) if unit.key not in seen else None
        seen.add(unit.key)
        if data is None:
            continue
        table = read_parquet(io.BytesIO(data)).replace_schema_metadata(None)
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
    return _passed(cell, table.sort_by([("chain", "ascending"), ("generation", "ascending")]))


def _passed(cell: Cell, table: pa.Table) -> pa.Table:
    """With a column that says of single normal chains whether the variance has been below half of the truth's."""
    if cell.kind != "gaussian" or cell.family().facts()["dims"] != 1 or table.num_rows % cell.generations:
        return table
    variances = table.column("variance").to_numpy().reshape(-1, cell.generations)
    passed = (np.minimum.accumulate(variances, axis=1) < 0.5).astype(np.float64)
    return table.append_column(PASSED, pa.array(passed.ravel()))


def exhibits(cell: Cell, store: Store) -> dict[int, dict[str, Any]]:
    """{generation: rows to look at} of the cell's first chain, where its family shows some."""
    found: dict[int, dict[str, Any]] = {}
    for unit in cell.units():
        if unit.block:
            break
        data = store.read_if_there(unit_name(unit.key))
        if data is not None:
            told = json.loads((pq.read_metadata(io.BytesIO(data)).metadata or {}).get(SHOWN, b"{}"))
            found |= {int(generation): exhibit for generation, exhibit in told.items()}
    return found


def costs(cells: Sequence[Cell], store: Store) -> list[dict[str, Any]]:
    """Of each cell the seconds of work for its units, and how many of them stand in a cell before it as well."""
    seen: set[str] = set()
    found = []
    for cell in cells:
        keys = dict.fromkeys(unit.key for unit in cell.units())
        row: dict[str, Any] = {"cell": cell.name, "num_units": len(keys), "num_shared": len(seen & set(keys))}
        row |= {"seconds": 0.0, "num_fits": cell.chains * cell.generations}
        for key in keys:
            data = store.read_if_there(unit_name(key)) if key not in seen else None
            if data is not None:
                row["seconds"] += json.loads((pq.read_metadata(io.BytesIO(data)).metadata or {}).get(SECONDS, b"0"))
        seen |= set(keys)
        found.append(row)
    return found


def write_results(cells: Sequence[Cell], store: Store) -> pa.Table:
    """Put results.parquet and summary.parquet; returns the summary. The same bytes whatever did the work."""
    sink, writer, rows = io.BytesIO(), None, []
    for cell in cells:
        table = cell_table(cell, store)
        if writer is None:
            writer = pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(_fitted(table, writer.schema))
        rows += list(summarised(cell, table))
    if writer is not None:
        writer.close()
    summary = pa.Table.from_pylist(rows, SUMMARY_SCHEMA)
    told = io.BytesIO()
    pq.write_table(summary, told, compression="zstd")
    store.put(RESULTS, sink.getvalue())
    store.put(SUMMARY, told.getvalue())
    return summary


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With the columns of the first cell: a cell whose chains all failed has few."""
    arrays = [
        table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.table(arrays, schema=schema)


def summarised(cell: Cell, table: pa.Table) -> Iterator[dict[str, Any]]:
    """Over chains: mean, spread and quantiles of each measure in each generation, its law, and z."""
    from gristmill.evaluation.laws.precision import check

    laws = lines(cell)
    of_generation = table.column("generation").to_numpy()
    order = np.argsort(of_generation, kind="stable")
    ends = np.searchsorted(of_generation[order], np.arange(1, cell.generations + 2))
    for measure in measures_of(table):
        values = table.column(measure).to_numpy(zero_copy_only=False)[order]
        line = laws.get(measure)
        for k in range(1, cell.generations + 1):
            here = values[ends[k - 1] : ends[k]]
            known = here[np.isfinite(here)]
            num = len(known)
            row: dict[str, Any] = {"cell": cell.name, "regime": cell.regime_name, "generation": k}
            row |= {"measure": measure, "num_chains": num}
            if num:
                deviation = float(known.std(ddof=1)) if num > 1 else math.nan
                low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
                row |= {"mean": float(known.mean()), "deviation": deviation, "median": float(middle)}
                row |= {"standard_error": deviation / math.sqrt(num), "q05": float(low), "q95": float(high)}
            if line is not None:
                row["law"] = float(line.expected[k - 1])
                if line.is_tested[k - 1] and num > 1 and num == len(here):
                    deviation = float(line.deviation[k - 1])
                    row["z"] = check(known, row["law"], None if math.isnan(deviation) else deviation).z
            yield row
