"""The figure of the engines' lanes: how many of its slots each engine had busy over the running time."""

from typing import TYPE_CHECKING

import numpy as np

from gristmill.jobs.pages.figure import COLOR, draw
from gristmill.jobs.report.history import History
from gristmill.jobs.report.plots import mark_starts, seconds_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure


HEIGHT = 0.8  # of a lane in which all slots are busy; lanes are 1 apart


def lanes(history: History) -> str:
    """A lane for each engine, filled up to the share of its slots that were busy; empty without such counts."""
    names = sorted(history.lanes, key=lambda name: (name.rpartition(" ")[0], len(name), name))
    if not names:
        return ""

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        for row, name in enumerate(names):
            edges, sums = history.lanes[name].coarse(160 if is_wide else 50, history.end_s)
            is_open = sums["seconds"] > 0
            share = np.divide(sums["busy"], sums["seconds"], out=np.zeros(len(is_open)), where=is_open)
            floor = row + HEIGHT / 2
            for heights, color in ((is_open * 1.0, COLOR["grid"]), (share, COLOR["c-engine"])):
                axes.stairs(floor - HEIGHT * heights, edges, baseline=floor, fill=True, color=color, linewidth=0)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, max(history.end_s, 1e-3))
        axes.grid(visible=False)
        axes.set_xlabel("running time of the driver")
        mark_starts(axes, history)
        seconds_axis(axes.xaxis, is_wide)

    height = 0.7 + max(0.5, min(0.28 * len(names), 5.0))
    return draw("lanes", "Share of busy slots of each engine over the running time", paint, height, height)
