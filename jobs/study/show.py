"""What a study shows on the terminal: the progress, the table of cells, the verdict."""

import io
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gristmill.generators.chains.cells import Unit
from gristmill.jobs.terminal.bar import Bar
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.stores.contract import Store

PLAIN_EVERY_S, MAX_SHOWN = 5.0, 24
MAX_NOW = 3  # units whose names are shown while they are worked on


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


def cells_table(book: dict[str, Any], store: Store) -> Table | None:
    """The last generation of each cell: the first measures, their laws, and z."""
    from gristmill.jobs.study.results import SUMMARY

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
