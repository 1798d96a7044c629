"""report.html of a study: one page, nothing fetched, nothing run."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.pages.page import render
from gristmill.jobs.study import plots as plots
from gristmill.jobs.study.exhibits import histograms, image_rows, recalls, shown_rows, texts
from gristmill.jobs.study.laws import lines
from gristmill.jobs.study.results import costs
from gristmill.jobs.study.spec import StudySpec
from gristmill.jobs.study.verdicts import verdicts_of
from gristmill.records.stores.contract import Store

MAX_FIGURES, MAX_LARGE, MAX_ROWS, MAX_MAPS, MAX_EXHIBITS, MAX_VERDICTS = 40, 4, 400, 12, 8, 60
MAX_EXAMPLES = 2  # points of the grid whose curves stand below the maps
Found = dict[str, dict[str, plots.Curve]]  # {measure: {cell: curve}}
LEVEL = 0.5  # of the truth's value: the contour that a phase map shows


def page(spec: StudySpec, cells: Sequence[Cell], book: dict[str, Any], summary: pa.Table, store: Store) -> str:
    """The page, from the summary and the study's own file."""
    filters = {"four": _four, "count": lambda n: f"{n:,.0f}"}
    found = _curves(summary)
    measures = [m for m in spec.show if m in found] + [m for m in found if m not in spec.show]
    sources = {m: line.source for cell in cells for m, line in lines(cell).items()}
    rows = shown_rows(cells[:MAX_EXHIBITS], store)
    facts = {
        "spec": spec,
        "ended": book["ended"],
        "store": store.uri,
        "num_chains": sum(cell.chains for cell in cells),
        "num_fits": sum(cell.chains * cell.generations for cell in cells),
        "cells": cells,
        "groups": _groups(spec, cells, found, measures),
        "maps": _maps(spec, cells, found, measures),
        "last": _last(found, [m for m in measures if m in _large(spec, found) or m in sources])[:MAX_ROWS],
        "sources": sources,
        "recalls": recalls(cells, found),
        "histograms": histograms(rows),
        "images": image_rows(rows),
        "texts": texts(rows),
        "costs": costs(cells, store)[:MAX_ROWS],
        "verdicts": _verdicts(cells, found),
        "settings": json.dumps(book["study"], indent=2),
        "versions": json.dumps(book["versions"], indent=2),
    }
    return render(Path(__file__).with_name("study.html"), facts, filters)


def _four(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _curves(summary: pa.Table) -> Found:
    """{measure: {cell: curve}}, both in the order of the study."""
    found: Found = {}
    rows = summary.to_pydict()
    keys = list(zip(rows["measure"], rows["cell"]))
    start = 0
    for (measure, cell), group in itertools.groupby(keys):
        stop = start + len(list(group))
        curve: plots.Curve = {"label": cell, "num_chains": rows["num_chains"][stop - 1]}
        for name in ("generation", "mean", "q05", "q95", "median", "standard_error", "law", "z"):
            values = [math.nan if v is None else v for v in rows[name][start:stop]]
            curve[name] = np.array(values)
        found.setdefault(measure, {})[cell] = curve
        start = stop
    return found


def _large(spec: StudySpec, found: Found) -> list[str]:
    """The measures that the study is about."""
    return [m for m in spec.show if m in found] or list(found)[:MAX_LARGE]


def _groups(spec: StudySpec, cells: Sequence[Cell], found: Found, measures: list[str]) -> list[dict[str, Any]]:
    """Figures: for each point of the grid the regimes beside each other, for each measure."""
    points: dict[str, list[Cell]] = {}
    for cell in cells:
        label = ", ".join(f"{a.rpartition('.')[2]} = {v}" for a, v in cell.varied.items())
        points.setdefault(label, []).append(cell)
    groups = []
    large = _large(spec, found)
    # Where there are maps, curves of a few points of the grid are examples.
    most = MAX_EXAMPLES if len(spec.grid) > 1 else max(1, MAX_FIGURES // max(1, len(measures)))
    for number, (label, here) in enumerate(list(points.items())[:most]):
        shown = here[: plots.MAX_CURVES]
        figures: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for measure in measures[:MAX_FIGURES]:
            curves = [found[measure][c.name] for c in shown if c.name in found[measure]]
            if any(np.isfinite(c["mean"]).any() for c in curves):
                told, is_small = measure.replace("_", " "), measure not in large
                svg = plots.curves(f"curves-{number}-{measure}", told, curves, is_small)
                figures[is_small].append({"measure": measure, "svg": Markup(svg)})
        legend = plots.legend([c.regime_name for c in shown])
        groups.append({"label": label, "figures": figures[False], "more": figures[True], "legend": legend})
    return groups


def _maps(spec: StudySpec, cells: Sequence[Cell], found: Found, measures: list[str]) -> list[dict[str, Any]]:
    """The first measure at the end over two axes of the grid, for each value of the others and each regime."""
    if len(spec.grid) < 2 or not measures:
        return []
    measure, (first, second, *others) = measures[0], list(spec.grid)
    maps: list[dict[str, Any]] = []
    for regime in spec.regimes:
        for point in itertools.product(*(spec.grid[a] for a in others)):
            rest = dict(zip(others, point))
            shape = len(spec.grid[second]), len(spec.grid[first])
            values, law = np.full(shape, math.nan), np.full(shape, math.nan)
            for cell in cells:
                if cell.regime_name == regime and all(cell.varied[a] == v for a, v in rest.items()):
                    at = spec.grid[second].index(cell.varied[second]), spec.grid[first].index(cell.varied[first])
                    curve = found[measure].get(cell.name)
                    if curve is not None:
                        values[at], law[at] = curve["mean"][-1], curve["law"][-1]
            label = ", ".join([regime, *(f"{a.rpartition('.')[2]} = {v}" for a, v in rest.items())])
            map_ = {"values": values, "law": law, "x": spec.grid[first], "y": spec.grid[second], "level": LEVEL}
            map_ |= {"x_name": first.rpartition(".")[2], "y_name": second.rpartition(".")[2]}
            svg = plots.phase_map(f"map-{len(maps)}", f"{measure} over the grid, {label}", map_)
            maps.append(
                {"label": label, "measure": measure, "svg": Markup(svg), "has_law": bool(np.isfinite(law).all())}
            )
    return maps[:MAX_MAPS]


def _verdicts(cells: Sequence[Cell], found: Found) -> list[dict[str, Any]]:
    """Of each cell the eight definitions of collapse."""
    rows = []
    for cell in cells[:MAX_VERDICTS]:
        curves = {measure: by_cell[cell.name] for measure, by_cell in found.items() if cell.name in by_cell}
        if curves:
            rows.append({"cell": cell.name, "verdicts": verdicts_of(cell, curves)})
    return rows


def _last(found: Found, measures: list[str]) -> list[dict[str, Any]]:
    """The last generation, cell by cell."""
    rows = []
    for measure in measures:
        for cell, curve in found[measure].items():
            z = curve["z"][np.isfinite(curve["z"])]
            row = {"cell": cell, "measure": measure, "num_chains": curve["num_chains"]}
            row |= {name: float(curve[name][-1]) for name in ("mean", "standard_error", "median", "law", "z")}
            row["largest"] = float(np.abs(z).max()) if len(z) else math.nan
            rows.append(row)
    return rows
