"""Figures of a study's page: curves by generation with band and law, maps over the grid, histograms of texts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.jobs.pages.figure import COLOR, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("c-rows", "c-alert", "c-tokens", "processing", "ink", "muted", "c-engine")
LINES = tuple(COLOR[name] for name in NAMES)
MAX_CURVES = len(LINES)
CURVE_IN, NARROW_IN, SMALL_IN = 2.9, 3.1, 2.5
LOG_BEYOND = 50.0  # ratio of largest to smallest value above which the axis is logarithmic

Curve = dict[str, Any]  # label, and arrays by generation: generation, mean, q05, q95, law, of one cell and measure
CurvesByMeasure = dict[str, dict[str, Curve]]  # {measure: {cell: curve}}


def curves(name: str, measure: str, cells: Sequence[Curve], is_small: bool = False) -> str:
    """SVG of one measure of some cells: means over chains, thin lines at 5 % and 95 % of the chains, the law as dots.

    A small figure fits a column of the page.
    """

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        for curve, color in zip(cells, LINES):
            k = curve["generation"]
            axes.plot(k, curve["mean"], color=color, linewidth=1.5)
            for edge in ("q05", "q95"):
                axes.plot(k, curve[edge], color=color, linewidth=0.6, alpha=0.45)
            if np.isfinite(curve["law"]).any():
                at = np.unique(np.linspace(0, len(k) - 1, 24 if is_wide else 12).astype(int))
                axes.plot(k[at], curve["law"][at], ".", color=color, markersize=5)
        _scale(axes, cells)
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
        axes.set_xlabel("generation")
        axes.set_ylabel(measure)
        axes.margins(x=0.01)

    title = f"{measure} by generation: " + ", ".join(str(c["label"]) for c in cells)
    return draw(name, title, paint, None if is_small else CURVE_IN, SMALL_IN if is_small else NARROW_IN)


def _scale(axes: "Axes", cells: Sequence[Curve]) -> None:
    values = np.concatenate([np.asarray(c["mean"], float) for c in cells])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > LOG_BEYOND:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        bottom = values.min() / 5
        axes.set_ylim(bottom, axes.get_ylim()[1])
        return
    if len(values):
        # The means set the range, because bands of heavy-tailed chains reach far beyond them.
        low, high = float(min(values.min(), 0)), float(values.max())
        if values.min() > high / 2:  # far from 0: with 0 on the axis the curve would look flat
            low = max(0.0, float(values.min()) - max(0.5 * (high - float(values.min())), 0.05 * high))
        bands = np.concatenate([np.asarray(c["q95"], float) for c in cells])
        bands = bands[np.isfinite(bands)]
        top = min(float(bands.max()), 2.5 * high) if len(bands) and high > 0 else high
        axes.set_ylim(low - 0.02 * abs(top or 1), max(top, high) * 1.04 or 1.0)


def legend(labels: Sequence[str]) -> list[tuple[str, str]]:
    """(label, CSS colour) in the order of the curves."""
    return [(label, f"var(--{name})") for label, name in zip(labels, NAMES)]


def phase_map(name: str, title: str, map_: dict[str, Any]) -> str:
    """SVG of a heat map: the mean in the last generation over two axes of the grid, with the law's contour."""

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        values, law = map_["values"], map_["law"]
        x, y = np.arange(len(map_["x"])), np.arange(len(map_["y"]))
        alpha = np.clip(np.nan_to_num(values / (np.nanmax(values) or 1.0)), 0, 1)
        shade = np.zeros((*values.shape, 4))
        shade[..., :3], shade[..., 3] = (0.0, 0.45, 0.70), 0.85 * alpha
        axes.imshow(shade, aspect="auto", origin="lower")
        for i in range(len(y)):
            for j in range(len(x)):
                if math.isfinite(values[i, j]):
                    axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=7.5 if is_wide else 6)
        if np.isfinite(law).all() and law.min() < map_["level"] < law.max():
            axes.contour(x, y, law, levels=[map_["level"]], colors=[COLOR["c-alert"]], linewidths=1.6)
        axes.set_xticks(x, [f"{v:g}" if isinstance(v, int | float) else str(v) for v in map_["x"]])
        axes.set_yticks(y, [f"{v:g}" if isinstance(v, int | float) else str(v) for v in map_["y"]])
        axes.set_xlabel(map_["x_name"])
        axes.set_ylabel(map_["y_name"])
        axes.grid(visible=False)

    return draw(name, title, paint, 3.4, 3.1)


def recalls(name: str, title: str, labels: Sequence[str], cells: Sequence[Curve], start: np.ndarray) -> str:
    """SVG of the share of words that survive, by their count in the real text (`labels`): one line per cell for the
    last generation, the law as dots, and `start`, the first generation, in dashes."""

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes, x = figure.subplots(), np.arange(len(labels))
        axes.plot(x, start, "--", color=COLOR["muted"], linewidth=1.2)
        for curve, color in zip(cells, LINES):
            axes.plot(x, curve["mean"], color=color, linewidth=1.5)
            axes.plot(x, curve["law"], ".", color=color, markersize=6)
        axes.set_xticks(x, labels)
        axes.set_ylim(-0.02, 1.03)
        axes.set_xlabel("times in the real text")
        axes.set_ylabel("share still written")
        axes.margins(x=0.03)

    return draw(name, title, paint, CURVE_IN, NARROW_IN)


def histograms(name: str, title: str, outlines: Sequence[tuple[int, dict[str, Any]]]) -> str:
    """SVG of the perplexities of single texts, one outline per generation, early ones pale; it fits a column.

    `outlines`: (generation, histogram of gristmill.evaluation.collapse.text.histogram) each.
    """

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        for number, (_, histogram) in enumerate(outlines):
            pale = 0.25 + 0.75 * number / max(1, len(outlines) - 1)
            axes.stairs(
                histogram["shares"],
                10 ** np.array(histogram["edges"]),
                color=COLOR["c-rows"],
                alpha=pale,
                linewidth=1.5,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(1, 1000)
        axes.set_ylim(0, 1.05 * max(max(h["shares"]) for _, h in outlines))
        axes.set_xlabel("perplexity under a model of the real text")
        axes.set_ylabel("share of the texts")

    return draw(name, title, paint, None, SMALL_IN)
