"""Figures of a run's report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.jobs.pages.figure import COLOR, PHASES, draw
from gristmill.jobs.report.history import History, Span
from gristmill.records.output.templates import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TICKS = {True: 9, False: 4}
_CROSS: dict[str, Any] = {
    "linestyle": "",
    "marker": "X",
    "markersize": 7,
    "markerfacecolor": COLOR["c-alert"],
    "markeredgecolor": COLOR["paper"],
    "markeredgewidth": 0.8,
    "zorder": 5,
}
STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800]
STEPS_S += [3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000]
MIN_COMMITS_A_BIN = 3
EVENTS_A_BIN = 2  # progress events


def seconds_axis(axis: Any, is_wide: bool) -> None:
    """Ticks at round clock times."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    low, high = axis.get_view_interval()
    step = next((s for s in STEPS_S if (high - low) / s <= MAX_TICKS[is_wide]), STEPS_S[-1])
    while (high - low) / step > MAX_TICKS[is_wide]:
        step *= 2
    axis.set_major_locator(MultipleLocator(step))
    axis.set_major_formatter(FuncFormatter(lambda seconds, _: _tick(seconds, step, high)))


def _tick(seconds: float, step_s: float, high_s: float) -> str:
    """A time with its unit, as short as the step allows: 4 s, 1:30 min, 20 min, 2:20 h, 5 h, 3 d."""
    if high_s < 120 or step_s < 1:
        return f"{seconds:g} s"
    if step_s < 60:
        return f"{seconds // 60:.0f}:{seconds % 60:02.0f} min"
    if high_s < 7200:
        return f"{seconds / 60:.0f} min"
    if step_s < 3600:
        return f"{seconds // 3600:.0f}:{seconds % 3600 / 60:02.0f} h"
    return f"{seconds / 3600:.0f} h" if high_s < 10 * 86400 else f"{seconds / 86400:g} d"


def _counts_axis(axis: Any, integer: bool = False) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4, integer=integer))
    large = EngFormatter(sep="")
    # Below one, the formatter would write thousandths as "600m".
    axis.set_major_formatter(FuncFormatter(lambda value, at: large(value, at) if abs(value) >= 1 else f"{value:g}"))


def mark_starts(axes: "Axes", history: History) -> None:
    """Dashed lines at restarts of the driver."""
    for number, start in enumerate(history.starts[1:], 2):
        axes.axvline(start.zero_s, color=COLOR["ink"], linewidth=0.8, linestyle=(0, (4, 3)))
        if number == 2 or len(history.starts) <= 6:
            axes.annotate(
                f"start {start.number}",
                (start.zero_s, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -9),
                textcoords="offset points",
                fontsize=8,
                color=COLOR["muted"],
            )


def throughput(history: History) -> str:
    """Rows and tokens per second over the running time, with a triangle where an engine was lost."""
    end_s = history.end_s
    num = int(np.clip(history.counts["commit"] / MIN_COMMITS_A_BIN, 6, 160))

    def paint(figure: "Figure", is_wide: bool) -> None:
        rows, tokens = figure.subplots(2, 1, sharex=True)
        edges, sums = history.commits.coarse(num if is_wide else min(num, 50), end_s)
        width = np.diff(edges)
        rows.stairs(sums["rows"] / width, edges, color=COLOR["c-rows"], linewidth=1.4)
        rows.stairs(sums["kept"] / width, edges, color=COLOR["c-rows"], fill=True, alpha=0.25, linewidth=0)
        rows.set_title("rows per second")
        tokens.stairs(sums["tokens"] / width, edges, color=COLOR["c-tokens"], linewidth=1.4)
        num_bins = history.counts["progress"] // EVENTS_A_BIN
        if num_bins and history.engine_tokens.sums["tokens"].any():
            at, sums_made = history.engine_tokens.coarse(int(np.clip(num_bins, 6, 160 if is_wide else 50)), end_s)
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = np.where(sums_made["seconds"] > 0, sums_made["tokens"] / sums_made["seconds"], np.nan)
            tokens.stairs(rate, at, baseline=None, color=COLOR["c-engine"], linewidth=1.3)
        tokens.set_title("tokens per second")
        for axes in (rows, tokens):
            _counts_axis(axes.yaxis)
            axes.set_ylim(bottom=0)
            axes.margins(x=0)
            axes.set_xlim(0, max(end_s, 1e-3))
            mark_starts(axes, history)
            for at_s in history.losses_s:
                axes.plot([at_s], [0], marker="v", color=COLOR["c-alert"], markersize=5, clip_on=False, zorder=5)
        seconds_axis(tokens.xaxis, is_wide)
        tokens.set_xlabel("running time of the driver")

    return draw("throughput", "Rows and tokens per second over the running time", paint, 3.6, 3.6)


def _gantt(axes: "Axes", spans: Sequence[Span], history: History, is_wide: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, phase in enumerate(PHASES):
        begin = np.array([s.edges_s[number] for s in spans])
        length = np.array([s.edges_s[number + 1] for s in spans]) - begin
        axes.barh([s.lot for s in spans], length, left=begin, height=0.78, color=COLOR[phase], linewidth=0)
    shown = {s.lot for s in spans}
    first_s = min(s.edges_s[0] for s in spans)
    retries = [(at_s, lot) for at_s, lot in history.retries if lot in shown and at_s >= first_s]
    if retries:
        axes.plot(*zip(*retries), **_CROSS)
    axes.set_ylim(max(shown) + 0.6, min(shown) - 0.6)
    axes.set_xlim(0 if history.shows_every_lot else first_s, None)
    axes.margins(x=0)
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(axis="y", visible=False)
    axes.set_ylabel("lot")
    axes.set_xlabel("running time of the driver")
    for start in history.starts[1:]:
        if start.zero_s > first_s:
            axes.axvline(start.zero_s, color=COLOR["ink"], linewidth=0.8, linestyle=(0, (4, 3)))
    seconds_axis(axes.xaxis, is_wide)


def lots(history: History) -> str:
    """Every lot from birth to commit; of a long run the last lots."""
    spans = history.spans if history.shows_every_lot else list(history.recent)
    rows = len(spans)
    return draw(
        "lots",
        "Timeline of lots: making, processing, waiting for their turn, committing",
        lambda figure, is_wide: _gantt(figure.subplots(), spans, history, is_wide),
        0.9 + max(1.2, min(rows * 0.11, 5.2)),
        0.9 + max(1.2, min(rows * 0.09, 4.4)),
    )


def phases(history: History) -> str:
    """Mean seconds of a lot in each phase over the running time."""

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        edges, sums = history.commits.coarse(120 if is_wide else 40, history.end_s)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [np.where(sums["lots"] > 0, sums[p] / sums["lots"], 0.0) for p in PHASES]
        below = np.zeros(len(means[0]))
        for phase, mean in zip(PHASES, means):
            axes.stairs(below + mean, edges, baseline=below, fill=True, color=COLOR[phase], linewidth=0)
            below = below + mean
        if history.retries:
            axes.plot([at_s for at_s, _ in history.retries], [0] * len(history.retries), clip_on=False, **_CROSS)
        axes.set_xlim(0, max(history.end_s, 1e-3))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("seconds per lot")
        axes.set_xlabel("running time of the driver, by time of commit")
        mark_starts(axes, history)
        seconds_axis(axes.xaxis, is_wide)

    return draw("phases", "Mean seconds of a lot in each phase over the running time", paint, 2.5, 2.5)


def template_shares(history: History, limit: float | None) -> str:
    """Share of the texts kept so far with the most frequent opening, closing and skeleton, over the lots."""
    colors = dict(zip(KINDS, (COLOR["c-rows"], COLOR["c-tokens"], COLOR["c-engine"])))

    def paint(figure: "Figure", is_wide: bool) -> None:
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        axes = figure.subplots()
        for kind, color in colors.items():
            points = [(lot, shares[kind]) for lot, shares in history.templates if kind in shares]
            if points:
                axes.plot(*zip(*points), color=color, linewidth=1.4, marker="o" if len(points) == 1 else "")
        if limit is not None:
            axes.axhline(limit, color=COLOR["c-alert"], linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_ylim(0, None)
        axes.set_xlabel("lots committed")
        axes.xaxis.set_major_locator(MaxNLocator(9 if is_wide else 4, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))

    return draw("templates", "Share of kept texts with the most frequent mark over the lots", paint, 2.2, 2.2)


def thinking(reasoning: np.ndarray, answers: np.ndarray) -> str:
    """Histograms of the tokens of the reasoning and of the answers of kept rows, on one scale."""
    top = max(1, int(reasoning.max(initial=0)), int(answers.max(initial=0)))
    num_bins = int(np.clip(2 * np.sqrt(len(answers)), 8, 48))
    edges = np.arange(0, top + 2 * -(-top // num_bins), -(-top // num_bins))

    def paint(figure: "Figure", is_wide: bool) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        names = (("reasoning", reasoning, "c-tokens"), ("answers", answers, "c-rows"))
        for axes, (name, tokens, color) in zip(panels, names):
            counts, _ = np.histogram(tokens, edges)
            axes.stairs(counts, edges - 0.5, fill=True, color=COLOR[color], linewidth=0)
            axes.set_title(f"{name}: median {np.median(tokens) if len(tokens) else 0:,.0f}")
            axes.grid(axis="x", visible=False)
            _counts_axis(axes.yaxis, integer=True)
            axes.margins(x=0.01)
        panels[1].set_xlabel("tokens in the calls of a kept row")

    return draw("thinking", "Histograms of the tokens of the reasoning and of the answers", paint, None, 3.2)


def lengths(tokens: np.ndarray) -> str:
    """Histogram of the lengths of kept rows, with the median and the 95th percentile."""
    median, high = (float(np.quantile(tokens, q)) for q in (0.5, 0.95))
    low, top = int(tokens.min()), int(tokens.max())
    num_bins = int(np.clip(2 * np.sqrt(len(tokens)), 8, 48))
    step = max(1, -(-(top - low + 1) // num_bins))
    edges = np.arange(low, top + step + 1, step)

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        counts, _ = np.histogram(tokens, edges)
        axes.stairs(counts, edges - 0.5, fill=True, color=COLOR["c-rows"], linewidth=0)
        for at, label in ((median, "median"), (high, "95 % ≤")):
            axes.axvline(at, color=COLOR["ink"], linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate(
                f"{label} {at:,.0f}",
                (at, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right" if label == "median" else "left",
                fontsize=8.5,
            )
        axes.set_xlabel("tokens in a kept row")
        axes.set_ylabel("rows")
        axes.grid(axis="x", visible=False)
        _counts_axis(axes.yaxis, integer=True)
        axes.margins(x=0.01)

    return draw("lengths", "Histogram of the lengths of kept rows in tokens", paint, None, 2.4)
