"""Figures of the evaluation page: real rows in one colour, synthetic rows in another."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.jobs.pages.figure import COLOR, draw
from gristmill.records.readers.tables import Column, TableSchema

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gristmill.evaluation.privacy.attacks import Attack
    from gristmill.evaluation.privacy.distances import Closeness

REAL, SYNTHETIC, THIRD = COLOR["c-rows"], COLOR["processing"], COLOR["c-tokens"]
NUM_BINS, MAX_BARS, MAX_POINTS = 30, 10, 300
MAX_IN_ROW, MAX_NAMED = 16, 40  # most columns for three heat maps in a row, and for labels on their axes
ROW_IN = 1.75
LINES = (REAL, SYNTHETIC, THIRD)
WARM, COLD = (0.85, 0.40, 0.05), (0.0, 0.45, 0.70)  # of a heat map; values near 0 are transparent


def short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _numbers(column: Column, table: pa.Table) -> np.ndarray:
    values = table.column(column.name).drop_null().to_numpy().astype(np.float64)
    return values


def _bars(column: Column, real: pa.Table, synthetic: pa.Table) -> tuple[list[str], np.ndarray]:
    """Labels and shares (2, bars) of the most frequent real categories; the last bar is all others together."""
    counts = [
        {c["values"]: c["counts"] for c in t.column(column.name).value_counts().to_pylist()} for t in (real, synthetic)
    ]
    order = sorted({*counts[0], *counts[1]}, key=lambda v: (-counts[0].get(v, 0), str(v)))
    most = MAX_BARS if len(order) <= MAX_BARS else MAX_BARS - 1
    shown, rest = order[:most], order[most:]
    shares = [[c.get(v, 0) for v in shown] + [sum(c.get(v, 0) for v in rest)] * bool(rest) for c in counts]
    labels = ["(missing)" if v is None else str(v) for v in shown] + [f"{len(rest)} others"] * bool(rest)
    return labels, np.array(shares) / np.array([[real.num_rows], [synthetic.num_rows]])


def _marginal(axes: "Axes", column: Column, real: pa.Table, synthetic: pa.Table) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_title(short(column.name, 26))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    if column.is_number:
        values, others = _numbers(column, real), _numbers(column, synthetic)
        low, high = values.min(), values.max()
        edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
        for data, color, is_filled in ((values, REAL, True), (np.clip(others, low, edges[-1]), SYNTHETIC, False)):
            counts = np.histogram(data, edges)[0] / max(len(data), 1)
            axes.stairs(counts, edges, color=color, fill=is_filled, alpha=0.35 if is_filled else 1, linewidth=1.4)
        axes.margins(x=0)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if high >= 10_000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        return
    labels, shares = _bars(column, real, synthetic)
    at = np.arange(len(labels))
    axes.barh(at - 0.2, shares[0], 0.38, color=REAL, alpha=0.6, linewidth=0)
    axes.barh(at + 0.2, shares[1], 0.38, color=SYNTHETIC, linewidth=0)
    axes.set_ylim(MAX_BARS - 0.4 if len(labels) > 4 else 4 - 0.4, -0.6)
    axes.set_yticks(at, [short(label, 16) for label in labels], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def marginals(columns: Sequence[Column], real: pa.Table, synthetic: pa.Table) -> str:
    """One plot per column: a histogram over the real range, or shares of categories."""

    def paint(figure: "Figure", is_wide: bool) -> None:
        num = 4 if is_wide else 2
        grid = figure.subplots(-(-len(columns) // num), num, squeeze=False).ravel()
        for axes, column in zip(grid, columns):
            _marginal(axes, column, real, synthetic)
        for axes in grid[len(columns) :]:
            axes.remove()

    rows = {n: -(-len(columns) // n) for n in (4, 2)}
    return draw("marginals", "Each column, real and synthetic", paint, ROW_IN * rows[4], ROW_IN * rows[2])


def heat(values: np.ndarray) -> np.ndarray:
    """RGBA (rows, columns, 4): warm above 0, cold below, opaque in proportion to the absolute value."""
    rgba = np.zeros((*values.shape, 4))
    rgba[..., :3] = np.where(values[..., None] >= 0, WARM, COLD)
    rgba[..., 3] = np.clip(np.abs(values), 0, 1)
    return rgba


def associations(names: Sequence[str], real: np.ndarray, synthetic: np.ndarray) -> str:
    """Three heat maps: real, synthetic, difference."""
    parts = (("real train rows", real), ("synthetic", synthetic), ("synthetic − real", synthetic - real))
    is_crowded = len(names) > MAX_IN_ROW

    def paint(figure: "Figure", is_wide: bool) -> None:
        shape = (1, 3) if is_wide and not is_crowded else (2, 2) if is_wide else (3, 1)
        grid = figure.subplots(*shape, squeeze=False)
        for number, (axes, (title, values)) in enumerate(zip(grid.ravel(), parts)):
            axes.imshow(heat(values), interpolation="none")
            axes.set_title(title)
            axes.grid(visible=False)
            axes.set_xticks([])
            axes.set_yticks([])
            if number % shape[1] == 0 and len(names) <= MAX_NAMED:
                size = float(np.clip((190 if is_wide else 150) / len(names), 4, 8))
                axes.set_yticks(range(len(names)), [short(n, 22) for n in names], fontsize=size)
            axes.tick_params(axis="y", length=0)
            for spine in axes.spines.values():
                spine.set_visible(True)
        for axes in grid.ravel()[len(parts) :]:
            axes.remove()

    title = "Association of every two columns: real, synthetic, difference"
    return draw("associations", title, paint, 7.6 if is_crowded else 2.9, 8.4)


def _pair(axes: "Axes", left: Column, right: Column, table: pa.Table, real: pa.Table, color: str) -> None:
    """Two columns of one table: points, quantiles by category, or a map of shares."""
    from matplotlib.ticker import MaxNLocator

    if left.kind == "category" and right.is_number:
        left, right = right, left
    first, second = table.column(left.name).to_pylist(), table.column(right.name).to_pylist()
    axes.set_xlabel(short(left.name, 22))
    axes.set_ylabel(short(right.name, 22))
    if right.is_number:
        axes.plot(first, second, "o", markersize=2.2, color=color, alpha=0.65, markeredgewidth=0)
        for column, limit in ((left, axes.set_xlim), (right, axes.set_ylim)):
            values = _numbers(column, real)
            room = 0.05 * ((values.max() - values.min()) or 1)
            limit(values.min() - room, values.max() + room)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        return
    shown = _bars(right, real, real)[0][: MAX_BARS - 3]
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [short(v, 13) for v in shown], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    if left.is_number:
        for at, value in enumerate(shown):
            group = np.array([a for a, b in zip(first, second) if b == value and a is not None], float)
            if len(group):
                low, first_q, middle, third_q, high = np.quantile(group, [0.05, 0.25, 0.5, 0.75, 0.95])
                axes.plot([low, high], [at, at], color=color, linewidth=1)
                axes.plot([first_q, third_q], [at, at], color=color, linewidth=5, solid_capstyle="butt")
                axes.plot([middle], [at], "|", color=COLOR["ink"], markersize=8)
        values = _numbers(left, real)
        room = 0.05 * ((values.max() - values.min()) or 1)
        axes.set_xlim(values.min() - room, values.max() + room)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        return
    across = _bars(left, real, real)[0][: MAX_BARS - 3]
    pairs = list(zip(first, second))
    shares = np.array([[pairs.count((a, b)) for a in across] for b in shown]) / max(len(pairs), 1)
    axes.scatter(
        *np.meshgrid(range(len(across)), range(len(shown))), s=500 * shares, color=color, linewidths=0, clip_on=False
    )
    axes.set_xlim(-0.7, len(across) - 0.3)
    axes.set_xticks(range(len(across)), [short(v, 9) for v in across], fontsize=7, rotation=35, ha="right")


def pairs(schema: TableSchema, chosen: Sequence[tuple[str, str]], real: pa.Table, synthetic: pa.Table) -> str:
    """The chosen pairs, real on the left and synthetic on the right."""

    def paint(figure: "Figure", is_wide: bool) -> None:
        across = 2 if is_wide else 1
        grid = figure.subplots(-(-len(chosen) // across), 2 * across, squeeze=False)
        for number in range(grid.size // 2):
            two = grid[number // across, 2 * (number % across) :][:2]
            for axes, table, color in zip(two, (real, synthetic), (REAL, SYNTHETIC)):
                if number >= len(chosen):
                    axes.remove()
                    continue
                left, right = (schema.column(name) for name in chosen[number])
                _pair(axes, left, right, table, real, color)
                if table is synthetic:
                    axes.set_ylabel("")
                    axes.set_yticklabels([])

    rows = {n: -(-len(chosen) // n) for n in (2, 1)}
    return draw("pairs", "The strongest pairs of columns, real and synthetic", paint, 2.3 * rows[2], 2.2 * rows[1])


def roc(attacks: Sequence["Attack"]) -> str:
    """ROC curve of every attack, with linear and with logarithmic axes."""

    def paint(figure: "Figure", is_wide: bool) -> None:
        grid = figure.subplots(*((1, 2) if is_wide else (2, 1)), squeeze=False).ravel()
        for axes, is_log in zip(grid, (False, True)):
            floor = 1 / max(max(len(a.others) for a in attacks), 10)
            line = np.linspace(floor if is_log else 0, 1, 200)
            axes.plot(line, line, color=COLOR["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
            for attack, color in zip(attacks, LINES):
                false, true = thinned(*attack.roc())
                axes.plot(false, true, color=color, linewidth=1.5, drawstyle="steps-post", label=attack.name)
            if is_log:
                axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1))
                axes.minorticks_off()
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
            else:
                axes.set(xlim=(0, 1), ylim=(0, 1))
            axes.set_xlabel(f"false positive rate{', logarithmic' if is_log else ''}")
            axes.set_ylabel("true positive rate")

    return draw("roc", "True positive rate over false positive rate of the attacks", paint, 3.4, 6.4)


def thinned(false: np.ndarray, true: np.ndarray, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """About `most` points of a curve at most: both ends, and more points at the beginning."""
    if len(false) <= most:
        return false, true
    early = np.unique(np.geomspace(1, len(false), most // 2).astype(int)) - 1
    at = np.unique([0, *early, *np.linspace(0, len(false) - 1, most // 2).astype(int)])
    return false[at], true[at]


def distances(close: "Closeness") -> str:
    """Histogram of the distances to the closest record."""
    parts = ((close.to_train, SYNTHETIC), (close.to_holdout, THIRD), (close.holdout_to_train, REAL))
    top = float(max(np.quantile(values, 0.99) for values, _ in parts)) or 1.0

    def paint(figure: "Figure", is_wide: bool) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        edges = np.linspace(0, top, 50)
        for values, color in parts:
            axes.stairs(np.histogram(values, edges)[0] / len(values), edges, color=color, linewidth=1.5)
        axes.set(xlim=(0, top), ylim=(0, None))
        axes.set_xlabel("distance to the closest real row")
        axes.set_ylabel("share of rows")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")

    return draw("distances", "Distances to closest records", paint, 2.6, 2.4)


def image_grid(pixels: np.ndarray, across: int = 10) -> str:
    """PNG data URI of a grid of images, uint8 (n, channels, height, width), `across` in a row."""
    from PIL import Image

    num, channels, height, width = pixels.shape
    rows = -(-num // across)
    whole = np.full((rows * (height + 1) - 1, across * (width + 1) - 1, channels), 128, np.uint8)
    for at, image in enumerate(pixels):
        top, left = at // across * (height + 1), at % across * (width + 1)
        whole[top : top + height, left : left + width] = np.moveaxis(image, 0, -1)
    sink = io.BytesIO()
    Image.fromarray(whole[..., 0] if channels == 1 else whole).save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """(CSS name of the colour, name of the attack) for the lines of `roc`."""
    order: list[Any] = ["c-rows", "processing", "c-tokens"]
    return list(zip(order, names))
