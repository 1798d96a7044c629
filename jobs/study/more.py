"""More chains where the first ones were too few: `[laws] precision`, in two stages (Stein 1945).

The chains that the study names are done first; their spread, or the law's where it is known, says how many a mean needs
for its standard error, and the cells that have fewer get the rest, once. Going on until a mean looks good enough would
bias it; one look at the spread hardly does. New chains are further blocks of the same streams: nothing is done twice.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.study.laws import lines
from gristmill.jobs.study.spec import StudySpec


def extended(spec: StudySpec, cells: Sequence[Cell], summary: pa.Table) -> list[Cell]:
    """The cells, with as many chains as `laws.precision` takes in the last generation, at most `laws.max_chains`.

    The statistics that count are `laws.statistics`, or without any all whose law is tested there.
    """
    rows = {(r["cell"], r["measure"], r["generation"]): r for r in summary.to_pylist()}
    return [replace(cell, chains=_chains(spec, cell, rows)) for cell in cells]


def _chains(spec: StudySpec, cell: Cell, rows: dict[Any, dict[str, Any]]) -> int:
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


def told(before: Sequence[Cell], after: Sequence[Cell]) -> str:
    """What is added, in one line."""
    grown = [(old, new) for old, new in zip(before, after) if new.chains > old.chains]
    more = sum(new.chains - old.chains for old, new in grown)
    return f"{len(grown):,} of {len(after):,} cells need more chains for the precision asked for: {more:,} more"


def restored(cells: Sequence[Cell], book: dict[str, Any]) -> list[Cell]:
    """The cells as they were extended, by study.json."""
    chains = book.get("chains", {})
    return [replace(cell, chains=chains.get(cell.name, cell.chains)) for cell in cells]
