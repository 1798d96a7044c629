"""Terminal output of a study: progress, table of cells, verdict."""

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from gristmill.generators.chains.cells import Unit
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.records.stores.contract import Store

PLAIN_EVERY_S, MAX_SHOWN = 5.0, 24
MAX_NOW = 3  # number of running units that the bar names


class StudyBar(Bar):
    """Progress bar: generations done, over all chains."""

    def __init__(self, console: SafeConsole, units: Sequence[Unit]) -> None:
        super().__init__(console, "study", PLAIN_EVERY_S)
        self.sizes = {u.key: (u.last - u.first + 1) * u.cell.width for u in units}
        self.total = sum(self.sizes.values())
        self.names = {
            u.key: f"{u.cell.regime_name} {u.first}"
            for u in units
            if u.first == u.last  # units of heavy families have one generation each
        }

    def __enter__(self) -> "StudyBar":
        super().__enter__()
        return self

    def update(self, progress: Any) -> None:
        """Show a gristmill.cluster.fits.units.Progress."""
        done = sum(self.sizes[key] for key in progress.done)
        failed = f", {len(progress.failed):,} failed" if progress.failed else ""
        text = f"{done / self.total:.0%}  {len(progress.done):,} of {progress.num_units:,} units{failed}"
        if now := [self.names[key] for key in progress.going if key in self.names][:MAX_NOW]:
            text += f"  now: {', '.join(now)}"
        self.show(done, self.total, text)


def cells_table(study_file: dict[str, Any], store: Store) -> Table | None:
    """The last generation of each cell: the first measures, their laws and z; None without a summary."""
    from gristmill.jobs.study.results import read_summary

    summary = read_summary(store)
    if summary is None:
        return None
    rows = summary.to_pylist()
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        last[row["cell"], row["measure"]] = row  # rows are in the order of generations
    wanted = study_file["study"].get("show") or sorted({m for _, m in last}, key=[m for _, m in last].index)[:3]
    table = Table(title=f"{study_file['study']['name']}: the last generation", title_justify="left")
    for name in ("cell", "measure", "mean", "s.e.", "median", "law", "z"):
        table.add_column(name, justify="left" if name in ("cell", "measure") else "right")
    shown = [row for (_, measure), row in last.items() if measure in wanted]
    for row in shown[: 3 * MAX_SHOWN]:
        numbers = [_four(row[key]) for key in ("mean", "standard_error", "median", "law")]
        table.add_row(row["cell"], row["measure"], *numbers, "" if row["z"] is None else f"{row['z']:+.1f}")
    return table


def verdict_line(ended: dict[str, Any]) -> str:
    """State of the study, units and the largest deviation from a law, in one line."""
    worst = ended["worst"]
    text = f"{ended['num_done']:,} of {ended['num_units']:,} units done"
    if ended["failed"]:
        text += f", {len(ended['failed']):,} failed"
    if worst is None:
        return f"{ended['state']}: {text}; no exact law to test"
    where = f"{worst['measure']} of '{worst['cell']}' in generation {worst['generation']}"
    return (
        f"{ended['state']}: {text}; {worst['num_tested']:,} estimates tested against exact laws, "
        f"largest |z| {abs(worst['z']):.1f} ({where})"
    )


def _four(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"
