"""What the chains of a study made, for its page: images and texts by generation, words kept, perplexities of texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.study import plots as plots
from gristmill.jobs.study.results import exhibits
from gristmill.records.stores.contract import Store

MAX_IMAGE_ROWS, MAX_TEXTS = 8, 2
RECALL = "recall_"
Shown = dict[str, dict[int, dict[str, Any]]]  # {cell: {generation: exhibit}}


def shown_rows(cells: Sequence[Cell], store: Store) -> Shown:
    """Rows of the first chain of each cell that shows some."""
    found = {cell.name: exhibits(cell, store) for cell in cells}
    return {name: by_generation for name, by_generation in found.items() if by_generation}


def some_generations(found: Sequence[int], most: int = 4) -> list[int]:
    """All of them, or the first two, the last, and some between at equal steps."""
    ordered = sorted(found)
    if len(ordered) <= most:
        return ordered
    at = np.unique(np.linspace(1, len(ordered) - 1, most - 1).round().astype(int))
    return [ordered[0], *(ordered[i] for i in at)]


def image_rows(shown: Shown) -> dict[str, Any] | None:
    """A row a generation, a block of images a cell; None where nobody makes images."""
    with_images = {name: rows for name, rows in shown.items() if any("images" in e for e in rows.values())}
    if not with_images:
        return None
    every = some_generations(list({k for rows in with_images.values() for k in rows}), MAX_IMAGE_ROWS)
    rows = [
        {"generation": k, "blocks": [by.get(k, {}).get("images", []) for by in with_images.values()]} for k in every
    ]
    return {"cells": list(with_images), "rows": rows}


def texts(shown: Shown) -> list[dict[str, Any]]:
    """Of each cell the first texts of some generations."""
    found = []
    for name, rows in shown.items():
        with_texts = {k: e["texts"][:MAX_TEXTS] for k, e in rows.items() if e.get("texts")}
        if with_texts:
            picked = [{"generation": k, "texts": with_texts[k]} for k in some_generations(list(with_texts))]
            found.append({"cell": name, "generations": picked})
    return found


def histograms(shown: Shown) -> list[dict[str, Any]]:
    """Of each cell the perplexities of its texts under generation 0, some generations over each other."""
    found: list[dict[str, Any]] = []
    for name, rows in shown.items():
        known = {k: e["histogram"] for k, e in rows.items() if e.get("histogram", {}).get("shares")}
        if known:
            lines = [(k, known[k]) for k in some_generations(list(known))]
            told = f"Perplexity of single texts under a model of the real text, {name}"
            svg = plots.histograms(f"histogram-{len(found)}", told, lines)
            found.append({"cell": name, "svg": Markup(svg), "generations": [k for k, _ in lines]})
    return found


def recalls(cells: Sequence[Cell], found: dict[str, dict[str, plots.Curve]]) -> dict[str, Any] | None:
    """Words that are still written by how often the real text has them; None where nobody counts words."""
    names = [name for name in found if name.startswith(RECALL)]
    shown = [c for c in cells if all(c.name in found[name] for name in names)][: plots.MAX_CURVES]
    if len(names) < 2 or not shown:
        return None
    labels = [name.removeprefix(RECALL).replace("_up", "+").replace("_", "-") for name in names]

    def line(cell: Cell, what: str, at: int) -> np.ndarray:
        return np.array([float(found[name][cell.name][what][at]) for name in names])

    curves = [{"label": c.name, "mean": line(c, "mean", -1), "law": line(c, "law", -1)} for c in shown]
    told = "Share of the words that is still written, by their count in the real text: " + ", ".join(
        c.name for c in shown
    )
    svg = plots.recalls("recalls", told, labels, curves, line(shown[0], "mean", 0))
    return {"svg": Markup(svg), "legend": plots.legend([c.name for c in shown])}
