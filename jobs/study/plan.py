"""The plan of a study: units of work, values that laws expect, chains that a precision needs, and costs.

`[laws] precision` adds chains in two stages (Stein 1945). The study first runs the chains that its file names. Their
spread, or the spread by the law, gives the number of chains that a mean needs for its standard error. Cells with fewer
chains get the rest, once: adding chains until a mean looks good would bias it, a single look at the spread hardly does.
New chains are further blocks of the same random numbers, so nothing is done twice.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from rich.table import Table

from gristmill.generators.chains.cells import Cell, Unit
from gristmill.generators.chains.work import SECONDS, done_units, read_unit, unit_facts
from gristmill.jobs.study.laws import law_curves
from gristmill.jobs.study.results import read_summary
from gristmill.jobs.study.spec import StudySpec
from gristmill.records.stores.contract import Store

PRECISION = 0.05  # relative standard error for the column "needed"
MAX_SHOWN = 24
MAX_READ = 200  # number of units whose seconds are read


def plan_table(spec: StudySpec, cells: Sequence[Cell], store: Store) -> Table:
    """Cells with rows, generations and chains; for each law its value in the last generation, and the number of chains
    that the mean needs: by the spread of the law, else (~) by the spread of the chains in the output."""
    units = {unit.key for cell in cells for unit in cell.units()}
    fits = sum(cell.chains * cell.generations for cell in cells)
    title = f"{spec.name}: {len(cells):,} cells, {fits:,} fits in {len(units):,} units of work"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        f"needed: chains for {PRECISION:.0%} standard error of the mean; ~: by the spread of finished chains"
    )
    for name in ("cell", "rows", "gen.", "chains", "statistic", "at the end", "needed"):
        is_text = name in ("cell", "statistic")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "cell")
    measured = _deviations(store)
    for cell in cells[:MAX_SHOWN]:
        row = [cell.name, f"{cell.n:,}", f"{cell.generations:,}", f"{cell.chains:,}"]
        curves = law_curves(cell)
        if not curves:
            table.add_row(*row, "no law is known")
        for name, curve in curves.items():
            needed = chains_needed(curve.expected[-1], curve.deviation[-1])
            if needed == "?" and (cell.name, name) in measured:
                needed = "~" + chains_needed(curve.expected[-1], measured[cell.name, name])
            table.add_row(*row, name, f"{curve.expected[-1]:.4g}", needed)
            row = [""] * len(row)
    if len(cells) > MAX_SHOWN:
        table.add_row(f"and {len(cells) - MAX_SHOWN:,} more")
    return table


def _deviations(store: Store) -> dict[tuple[str, str], float]:
    """Standard deviations across chains in the last generation, by cell and measure, from the summary in the output."""
    table = read_summary(store)
    rows = [] if table is None else table.select(["cell", "measure", "deviation"]).to_pylist()
    return {(row["cell"], row["measure"]): row["deviation"] for row in rows if row["deviation"] is not None}


def chains_needed(expected: float, deviation: float) -> str:
    """Number of chains until the standard error of the mean is PRECISION of `expected`; "?" without a finite number."""
    from gristmill.evaluation.laws.precision import chains_for

    if not math.isfinite(deviation) or not math.isfinite(expected) or not expected:
        return "?"
    return f"{chains_for(float(expected), float(deviation), PRECISION):,}"


def cost_line(spec: StudySpec, cells: Sequence[Cell], store: Store) -> str:
    """Remaining work in hours and money, from the seconds of finished units; unknown without any.

    The estimate of a unit is the mean of units of the same cell and generation, else of the cell, else of all units.
    """
    units = list({unit.key: unit for cell in cells for unit in cell.units()}.values())
    done = done_units([unit.key for unit in units], store)
    left = [unit for unit in units if unit.key not in done]
    text = f"{len(done):,} of {len(units):,} units are done"
    if not left:
        return f"cost: {text}, nothing is left"
    if not done:
        return (
            f"cost: unknown until the first units are done in {store.uri}; run this again then, no unit is done twice"
        )
    seconds = _seconds([unit for unit in units if unit.key in done], store)
    work_s = sum(_guess(unit, seconds) for unit in left)
    devices = spec.work.num_gpus or 1.0  # a unit without a GPU counts as one device
    text += f"; the {len(left):,} left take about {_hours(work_s)} on one worker"
    price = spec.cluster.price_per_device_hour
    if price is None:
        return f"cost: {text}; set cluster.price_per_device_hour for the price"
    return f"cost: {text}, {work_s * devices / 3600 * price:,.2f} {spec.cluster.currency}"


def _seconds(units: Sequence[Unit], store: Store) -> dict[Any, float]:
    """Mean seconds of a unit by (cell, first generation), by cell, and of all units (None)."""
    by_group: dict[Any, list[float]] = defaultdict(list)
    for unit in units[:: -(-len(units) // MAX_READ)]:
        table = read_unit(store, unit.key)
        for group in ((unit.cell.name, unit.first), unit.cell.name, None):
            by_group[group].append(0.0 if table is None else float(unit_facts(table, SECONDS)))
    return {group: sum(values) / len(values) for group, values in by_group.items()}


def _guess(unit: Unit, seconds: dict[Any, float]) -> float:
    for group in ((unit.cell.name, unit.first), unit.cell.name):
        if group in seconds:
            return seconds[group]
    return seconds[None]


def _hours(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


# More chains for `[laws] precision`.


def extend_chains(spec: StudySpec, cells: Sequence[Cell], summary: pa.Table) -> list[Cell]:
    """The cells with as many chains as `laws.precision` needs in the last generation, at most `laws.max_chains`.

    It counts the measures in `laws.statistics`, or without them every measure whose law is tested there.
    """
    rows = {(r["cell"], r["measure"], r["generation"]): r for r in summary.to_pylist()}
    return [replace(cell, chains=_num_chains(spec, cell, rows)) for cell in cells]


def _num_chains(spec: StudySpec, cell: Cell, rows: dict[Any, dict[str, Any]]) -> int:
    from gristmill.evaluation.laws.precision import chains_for

    most = cell.chains
    for name, curve in law_curves(cell).items():
        row = rows.get((cell.name, name, cell.generations))
        counts = name in spec.laws.statistics if spec.laws.statistics else curve.is_tested[-1]
        expected = float(curve.expected[-1])
        if row is None or not counts or not math.isfinite(expected) or not expected:
            continue
        by_law = float(curve.deviation[-1])
        spread = by_law if math.isfinite(by_law) else row["deviation"]
        if spread is not None and math.isfinite(spread):
            most = max(most, chains_for(expected, spread, spec.laws.precision))
    return max(cell.chains, min(most, spec.laws.max_chains))


def extension_line(before: Sequence[Cell], after: Sequence[Cell]) -> str:
    """The number of new chains, in one line."""
    grown = [(old, new) for old, new in zip(before, after) if new.chains > old.chains]
    more = sum(new.chains - old.chains for old, new in grown)
    return f"{len(grown):,} of {len(after):,} cells need more chains for laws.precision: {more:,} chains are added"


def recorded_chains(cells: Sequence[Cell], study_file: dict[str, Any]) -> list[Cell]:
    """The cells with the numbers of chains that study.json records."""
    chains = study_file.get("chains", {})
    return [replace(cell, chains=chains.get(cell.name, cell.chains)) for cell in cells]
