"""Exhibits of a study's page: images and texts by generation, words that survive, perplexities of texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.study import plots
from gristmill.jobs.study.results import exhibits
from gristmill.records.stores.contract import Store

MAX_IMAGE_ROWS, MAX_TEXTS = 8, 2
RECALL = "recall_"
ExhibitsByCell = dict[str, dict[int, dict[str, Any]]]  # {cell: {generation: exhibit}}


def exhibits_by_cell(cells: Sequence[Cell], store: Store) -> ExhibitsByCell:
    """The exhibits of the first chain of each cell, without cells that have none."""
    every = {cell.name: exhibits(cell, store) for cell in cells}
    return {name: by_generation for name, by_generation in every.items() if by_generation}


def some_generations(generations: Sequence[int], most: int = 4) -> list[int]:
    """All generations, or the first two, the last, and some between at equal steps."""
    ordered = sorted(generations)
    if len(ordered) <= most:
        return ordered
    at = np.unique(np.linspace(1, len(ordered) - 1, most - 1).round().astype(int))
    return [ordered[0], *(ordered[i] for i in at)]


def image_rows(shown: ExhibitsByCell) -> dict[str, Any] | None:
    """One row per generation with a block of images per cell; None without images."""
    with_images = {name: rows for name, rows in shown.items() if any("images" in e for e in rows.values())}
    if not with_images:
        return None
    every = some_generations(list({k for rows in with_images.values() for k in rows}), MAX_IMAGE_ROWS)
    rows = [
        {"generation": k, "blocks": [by.get(k, {}).get("images", []) for by in with_images.values()]} for k in every
    ]
    return {"cells": list(with_images), "rows": rows}


def texts(shown: ExhibitsByCell) -> list[dict[str, Any]]:
    """The first texts of some generations of each cell."""
    blocks = []
    for name, rows in shown.items():
        with_texts = {k: e["texts"][:MAX_TEXTS] for k, e in rows.items() if e.get("texts")}
        if with_texts:
            picked = [{"generation": k, "texts": with_texts[k]} for k in some_generations(list(with_texts))]
            blocks.append({"cell": name, "generations": picked})
    return blocks


def histograms(shown: ExhibitsByCell) -> list[dict[str, Any]]:
    """For each cell the perplexities of its texts under a model of the real text, some generations in one figure."""
    figures: list[dict[str, Any]] = []
    for name, rows in shown.items():
        filled = {k: e["histogram"] for k, e in rows.items() if e.get("histogram", {}).get("shares")}
        if filled:
            outlines = [(k, filled[k]) for k in some_generations(list(filled))]
            title = f"Perplexity of single texts under a model of the real text, {name}"
            svg = plots.histograms(f"histogram-{len(figures)}", title, outlines)
            figures.append({"cell": name, "svg": Markup(svg), "generations": [k for k, _ in outlines]})
    return figures


def recalls(cells: Sequence[Cell], curves: plots.CurvesByMeasure) -> dict[str, Any] | None:
    """Share of words that the last generation still writes, by their count in the real text; None without words."""
    names = [name for name in curves if name.startswith(RECALL)]
    shown = [c for c in cells if all(c.name in curves[name] for name in names)][: plots.MAX_CURVES]
    if len(names) < 2 or not shown:
        return None
    labels = [name.removeprefix(RECALL).replace("_up", "+").replace("_", "-") for name in names]

    def values(cell: Cell, field: str, at: int) -> np.ndarray:
        return np.array([float(curves[name][cell.name][field][at]) for name in names])

    last = [{"label": c.name, "mean": values(c, "mean", -1), "law": values(c, "law", -1)} for c in shown]
    title = "Share of the words that the last generation writes, by their count in the real text: " + ", ".join(
        c.name for c in shown
    )
    svg = plots.recalls("recalls", title, labels, last, values(shown[0], "mean", 0))
    return {"svg": Markup(svg), "legend": plots.legend([c.name for c in shown])}
