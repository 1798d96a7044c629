"""report.html of a study: one page without scripts or external files."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.pages.page import render
from gristmill.jobs.study import plots
from gristmill.jobs.study.exhibits import exhibits_by_cell, histograms, image_rows, recalls, texts
from gristmill.jobs.study.laws import law_curves
from gristmill.jobs.study.results import costs
from gristmill.jobs.study.spec import StudySpec
from gristmill.jobs.study.verdicts import verdicts_of
from gristmill.records.printable import json_text
from gristmill.records.stores.contract import Store

MAX_FIGURES, MAX_LARGE, MAX_ROWS, MAX_MAPS, MAX_EXHIBITS, MAX_VERDICTS = 40, 4, 400, 12, 8, 60
MAX_EXAMPLES = 2  # points of the grid whose curves follow the maps
LEVEL = 0.5  # share of the true value at the contour of a phase map


def page(spec: StudySpec, cells: Sequence[Cell], study_file: dict[str, Any], summary: pa.Table, store: Store) -> str:
    """The HTML of the page, from the summary and study.json."""
    filters = {"four": _four, "count": lambda n: f"{n:,.0f}"}
    curves = _curves(summary)
    measures = [m for m in spec.show if m in curves] + [m for m in curves if m not in spec.show]
    sources = {m: line.source for cell in cells for m, line in law_curves(cell).items()}
    rows = exhibits_by_cell(cells[:MAX_EXHIBITS], store)
    facts = {
        "spec": spec,
        "ended": study_file["ended"],
        "store": store.uri,
        "num_chains": sum(cell.chains for cell in cells),
        "num_fits": sum(cell.chains * cell.generations for cell in cells),
        "cells": cells,
        "groups": _groups(spec, cells, curves, measures),
        "maps": _maps(spec, cells, curves, measures),
        "last": _last(curves, [m for m in measures if m in _large(spec, curves) or m in sources])[:MAX_ROWS],
        "sources": sources,
        "recalls": recalls(cells, curves),
        "histograms": histograms(rows),
        "images": image_rows(rows),
        "texts": texts(rows),
        "costs": costs(cells, store)[:MAX_ROWS],
        "verdicts": _verdicts(cells, curves),
        "settings": json_text(study_file["study"], indent=2),
        "versions": json_text(study_file["versions"], indent=2),
    }
    return render(Path(__file__).with_name("study.html"), facts, filters)


def _four(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _curves(summary: pa.Table) -> plots.CurvesByMeasure:
    """The curves of all cells, in the order of the study."""
    curves: plots.CurvesByMeasure = {}
    rows = summary.to_pydict()
    keys = list(zip(rows["measure"], rows["cell"]))
    start = 0
    for (measure, cell), group in itertools.groupby(keys):
        stop = start + len(list(group))
        curve: plots.Curve = {"label": cell, "num_chains": rows["num_chains"][stop - 1]}
        for name in ("generation", "mean", "q05", "q95", "median", "standard_error", "law", "z"):
            values = [math.nan if v is None else v for v in rows[name][start:stop]]
            curve[name] = np.array(values)
        curves.setdefault(measure, {})[cell] = curve
        start = stop
    return curves


def _large(spec: StudySpec, curves: plots.CurvesByMeasure) -> list[str]:
    """The measures with large figures."""
    return [m for m in spec.show if m in curves] or list(curves)[:MAX_LARGE]


def _groups(
    spec: StudySpec, cells: Sequence[Cell], curves: plots.CurvesByMeasure, measures: list[str]
) -> list[dict[str, Any]]:
    """For each point of the grid, one figure per measure with all regimes."""
    points: dict[str, list[Cell]] = {}
    for cell in cells:
        label = ", ".join(f"{a.rpartition('.')[2]} = {v}" for a, v in cell.varied.items())
        points.setdefault(label, []).append(cell)
    groups = []
    large = _large(spec, curves)
    # Beside maps, a few points of the grid are enough as examples.
    most = MAX_EXAMPLES if len(spec.grid) > 1 else max(1, MAX_FIGURES // max(1, len(measures)))
    for number, (label, here) in enumerate(list(points.items())[:most]):
        shown = here[: plots.MAX_CURVES]
        figures: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for measure in measures[:MAX_FIGURES]:
            of_cells = [curves[measure][c.name] for c in shown if c.name in curves[measure]]
            if any(np.isfinite(c["mean"]).any() for c in of_cells):
                title, is_small = measure.replace("_", " "), measure not in large
                svg = plots.curves(f"curves-{number}-{measure}", title, of_cells, is_small)
                figures[is_small].append({"measure": measure, "svg": Markup(svg)})
        legend = plots.legend([c.regime_name for c in shown])
        groups.append({"label": label, "figures": figures[False], "more": figures[True], "legend": legend})
    return groups


def _maps(
    spec: StudySpec, cells: Sequence[Cell], curves: plots.CurvesByMeasure, measures: list[str]
) -> list[dict[str, Any]]:
    """Maps of the first measure in the last generation over two axes of the grid, one for each value of the other axes
    and each regime."""
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
                    curve = curves[measure].get(cell.name)
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


def _verdicts(cells: Sequence[Cell], curves: plots.CurvesByMeasure) -> list[dict[str, Any]]:
    """The eight definitions of collapse for each cell."""
    rows = []
    for cell in cells[:MAX_VERDICTS]:
        by_measure = {measure: by_cell[cell.name] for measure, by_cell in curves.items() if cell.name in by_cell}
        if by_measure:
            rows.append({"cell": cell.name, "verdicts": verdicts_of(cell, by_measure)})
    return rows


def _last(curves: plots.CurvesByMeasure, measures: list[str]) -> list[dict[str, Any]]:
    """The last generation of each measure and cell."""
    rows = []
    for measure in measures:
        for cell, curve in curves[measure].items():
            z = curve["z"][np.isfinite(curve["z"])]
            row = {"cell": cell, "measure": measure, "num_chains": curve["num_chains"]}
            row |= {name: float(curve[name][-1]) for name in ("mean", "standard_error", "median", "law", "z")}
            row["largest"] = float(np.abs(z).max()) if len(z) else math.nan
            rows.append(row)
    return rows
