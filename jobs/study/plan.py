"""`--dry-run` of a study: what will be done, what the laws expect, how many chains that takes, and what it costs."""

import io
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from gristmill.generators.chains.cells import Cell, Unit
from gristmill.generators.chains.work import SECONDS, done_units, unit_name
from gristmill.jobs.study.laws import lines
from gristmill.jobs.study.results import SUMMARY
from gristmill.jobs.study.spec import StudySpec
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.stores.contract import Store

PRECISION = 0.05  # relative standard error for which the plan says how many chains are needed
MAX_SHOWN = 24
MAX_READ = 200  # units whose seconds are looked up


def plan_table(spec: StudySpec, cells: Sequence[Cell], store: Store) -> Table:
    """Cells, chains, generations, work; of each statistic with a law what it expects of the last generation, and how
    many chains its mean needs: by the law's own spread between chains, else (~) by that of chains in the output."""
    units = {unit.key for cell in cells for unit in cell.units()}
    fits = sum(cell.chains * cell.generations for cell in cells)
    title = f"{spec.name}: {len(cells):,} cells, {fits:,} fits in {len(units):,} units of work"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = f"needed: chains for {PRECISION:.0%} standard error of the mean; ~ by chains that are done"
    for name in ("cell", "rows", "gen.", "chains", "statistic", "at the end", "needed"):
        is_text = name in ("cell", "statistic")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "cell")
    seen = _deviations(store)
    for cell in cells[:MAX_SHOWN]:
        told = [cell.name, f"{cell.n:,}", f"{cell.generations:,}", f"{cell.chains:,}"]
        known = lines(cell)
        if not known:
            table.add_row(*told, "no law is known")
        for name, line in known.items():
            needed = chains_needed(line.expected[-1], line.deviation[-1])
            if needed == "?" and (cell.name, name) in seen:
                needed = "~" + chains_needed(line.expected[-1], seen[cell.name, name])
            table.add_row(*told, name, f"{line.expected[-1]:.4g}", needed)
            told = [""] * len(told)
    if len(cells) > MAX_SHOWN:
        table.add_row(f"and {len(cells) - MAX_SHOWN:,} more")
    return table


def _deviations(store: Store) -> dict[tuple[str, str], float]:
    """Of the last generation, by cell and measure, as an earlier run of the study has found them."""
    data = store.read_if_there(SUMMARY)
    if data is None:
        return {}
    rows = read_parquet(io.BytesIO(data), ("cell", "measure", "deviation")).to_pylist()
    return {(row["cell"], row["measure"]): row["deviation"] for row in rows if row["deviation"] is not None}


def chains_needed(expected: float, deviation: float, precision: float = PRECISION) -> str:
    """Chains until the standard error of a mean is `precision` of what is expected; "?" where that is not known."""
    if not math.isfinite(deviation) or not math.isfinite(expected) or not expected:
        return "?"
    return f"{max(1, math.ceil((deviation / expected / precision) ** 2)):,}"


def cost_line(spec: StudySpec, cells: Sequence[Cell], store: Store) -> str:
    """What is left to do, in hours and money, by the units that are done in the output; without any it is not known.

    A unit whose like (cell and first generation) was not done yet is taken to last as long as others of its cell, or
    as the mean of all.
    """
    units = list({unit.key: unit for cell in cells for unit in cell.units()}.values())
    done = done_units([unit.key for unit in units], store)
    left = [unit for unit in units if unit.key not in done]
    told = f"{len(done):,} of {len(units):,} units are done"
    if not left:
        return f"cost: {told}, nothing is left"
    if not done:
        return f"cost: unknown until the first units are done in {store.uri}; ask again then, nothing is done twice"
    seconds = _seconds([unit for unit in units if unit.key in done], store)
    work_s = sum(_guess(unit, seconds) for unit in left)
    devices = spec.work.num_gpus or 1.0  # a unit without a GPU is one device, as an engine without one is
    told += f"; the {len(left):,} left take {_hours(work_s)} of work by the seconds of those, on one worker at a time"
    price = spec.cluster.price_per_device_hour
    if price is None:
        return f"cost: {told}; for the price set cluster.price_per_device_hour"
    return f"cost: {told}, {work_s * devices / 3600 * price:,.2f} {spec.cluster.currency}"


def _seconds(units: Sequence[Unit], store: Store) -> dict[Any, float]:
    """Mean seconds of a unit by (cell, first generation), by cell, and of all (None)."""
    found: dict[Any, list[float]] = defaultdict(list)
    for unit in units[:: -(-len(units) // MAX_READ)]:
        metadata = pq.read_metadata(io.BytesIO(store.read(unit_name(unit.key)))).metadata or {}
        for group in ((unit.cell.name, unit.first), unit.cell.name, None):
            found[group].append(float(json.loads(metadata.get(SECONDS, b"0"))))
    return {group: sum(values) / len(values) for group, values in found.items()}


def _guess(unit: Unit, seconds: dict[Any, float]) -> float:
    for group in ((unit.cell.name, unit.first), unit.cell.name):
        if group in seconds:
            return seconds[group]
    return seconds[None]


def _hours(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


# More chains for `[laws] precision`.


def extend_chains(spec: StudySpec, cells: Sequence[Cell], summary: pa.Table) -> list[Cell]:
    """The cells, with as many chains as `laws.precision` takes in the last generation, at most `laws.max_chains`.

    The statistics that count are `laws.statistics`, or without any all whose law is tested there.
    """
    rows = {(r["cell"], r["measure"], r["generation"]): r for r in summary.to_pylist()}
    return [replace(cell, chains=_num_chains(spec, cell, rows)) for cell in cells]


def _num_chains(spec: StudySpec, cell: Cell, rows: dict[Any, dict[str, Any]]) -> int:
    most = cell.chains
    for name, line in lines(cell).items():
        row = rows.get((cell.name, name, cell.generations))
        counts = name in spec.laws.statistics if spec.laws.statistics else line.is_tested[-1]
        expected = float(line.expected[-1])
        if row is None or not counts or not math.isfinite(expected) or not expected:
            continue
        known = float(line.deviation[-1])
        spread = known if math.isfinite(known) else row["deviation"]
        if spread is not None and math.isfinite(spread):
            most = max(most, math.ceil((spread / expected / spec.laws.precision) ** 2))
    return max(cell.chains, min(most, spec.laws.max_chains))


def extension_line(before: Sequence[Cell], after: Sequence[Cell]) -> str:
    """What is added, in one line."""
    grown = [(old, new) for old, new in zip(before, after) if new.chains > old.chains]
    more = sum(new.chains - old.chains for old, new in grown)
    return f"{len(grown):,} of {len(after):,} cells need more chains for the precision asked for: {more:,} more"


def recorded_chains(cells: Sequence[Cell], book: dict[str, Any]) -> list[Cell]:
    """The cells as they were extended, by study.json."""
    chains = book.get("chains", {})
    return [replace(cell, chains=chains.get(cell.name, cell.chains)) for cell in cells]
