"""What a study shows on the terminal: the plan, the progress, the table of cells, the verdict."""

import io
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from generators.chains.cells import Cell, Unit
from jobs.bar import Bar
from jobs.study_laws import lines
from jobs.study_spec import StudySpec
from records.parquet import read_parquet
from records.store import Store

PLAIN_EVERY_S, MAX_SHOWN = 5.0, 24
MAX_NOW = 3  # units whose names are shown while they are worked on
PRECISION = 0.05  # relative standard error for which the plan says how many chains are needed


class Shown(Bar):
    """Generations done, over all chains."""

    def __init__(self, console: Console, units: Sequence[Unit]) -> None:
        super().__init__(console, "study", PLAIN_EVERY_S)
        self.sizes = {u.key: (u.last - u.first + 1) * u.cell.width for u in units}
        self.total = sum(self.sizes.values())
        self.names = {
            u.key: f"{u.cell.regime_name} {u.first}"
            for u in units
            if u.first == u.last  # heavy: a generation each
        }

    def __enter__(self) -> "Shown":
        super().__enter__()
        return self

    def tell(self, progress: Any) -> None:
        done = sum(self.sizes[key] for key in progress.done)
        failed = f", {len(progress.failed):,} failed" if progress.failed else ""
        text = f"{done / self.total:.0%}  {len(progress.done):,} of {progress.num_units:,} units{failed}"
        if now := [self.names[key] for key in progress.going if key in self.names][:MAX_NOW]:
            text += f"  now: {', '.join(now)}"
        self.show(done, self.total, text)


def plan_table(spec: StudySpec, cells: Sequence[Cell]) -> Table:
    """Cells, chains, generations, work, what the laws expect at the end and how many chains a mean would need."""
    units = {unit.key for cell in cells for unit in cell.units()}
    fits = sum(cell.chains * cell.generations for cell in cells)
    table = Table(
        title=f"{spec.name}: {len(cells):,} cells, {fits:,} fits in {len(units):,} units of work", title_justify="left"
    )
    for name in ("cell", "rows", "generations", "chains", "law at the end", f"chains for {PRECISION:.0%}"):
        table.add_column(name, justify="left" if name in ("cell", "law at the end") else "right")
    for cell in cells[:MAX_SHOWN]:
        known = lines(cell)
        expected, needed = "none known", ""
        for name, line in list(known.items())[:1]:
            expected = f"{name} {line.expected[-1]:.4g}"
            if math.isfinite(line.deviation[-1]) and line.expected[-1]:
                needed = f"{math.ceil((line.deviation[-1] / line.expected[-1] / PRECISION) ** 2):,}"
        table.add_row(cell.name, f"{cell.n:,}", f"{cell.generations:,}", f"{cell.chains:,}", expected, needed)
    if len(cells) > MAX_SHOWN:
        table.add_row(f"and {len(cells) - MAX_SHOWN:,} more", "", "", "", "", "")
    return table


def cells_table(book: dict[str, Any], store: Store) -> Table | None:
    """The last generation of each cell: the first measures, their laws, and z."""
    from jobs.study_results import SUMMARY

    data = store.read_if_there(SUMMARY)
    if data is None:
        return None
    rows = read_parquet(io.BytesIO(data)).to_pylist()
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        last[row["cell"], row["measure"]] = row  # generations rise
    wanted = book["study"]["show"] or sorted({m for _, m in last}, key=[m for _, m in last].index)[:3]
    table = Table(title=f"{book['study']['name']}: the last generation", title_justify="left")
    for name in ("cell", "measure", "mean", "s.e.", "median", "law", "z"):
        table.add_column(name, justify="left" if name in ("cell", "measure") else "right")
    shown = [row for (_, measure), row in last.items() if measure in wanted]
    for row in shown[: 3 * MAX_SHOWN]:
        told = [_four(row[key]) for key in ("mean", "standard_error", "median", "law")]
        table.add_row(row["cell"], row["measure"], *told, "" if row["z"] is None else f"{row['z']:+.1f}")
    return table


def verdict_line(ended: dict[str, Any]) -> str:
    """How it ended, in one line."""
    worst = ended["worst"]
    text = f"{ended['num_done']:,} of {ended['num_units']:,} units done"
    if ended["failed"]:
        text += f", {len(ended['failed']):,} failed"
    if worst is None:
        return f"{ended['state']}: {text}; no exact law was to be held"
    where = f"{worst['measure']} of '{worst['cell']}' in generation {worst['generation']}"
    return (
        f"{ended['state']}: {text}; {worst['num_tested']:,} estimates held against exact laws, "
        f"largest |z| {abs(worst['z']):.1f} ({where})"
    )


def _four(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"
