"""The figure of a run with several generators: what became of the rows of each."""

from typing import TYPE_CHECKING

from gristmill.jobs.pages.figure import COLOR, draw
from gristmill.jobs.terminal.generator_yields import GeneratorYield

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_REASONS = 4  # that the figure shows one by one
REASON_COLORS = ("processing", "c-alert", "committing", "muted", "waiting")  # the last is of all other reasons


def bars(rows: list[GeneratorYield]) -> str:
    """A bar for each generator: the share of its rows that was kept, then the shares of the most frequent rejects."""
    rows = [row for row in rows if row.asks]
    if not rows:
        return ""
    reasons = top_reasons(rows)

    def paint(figure: "Figure", is_wide: bool) -> None:
        from matplotlib.ticker import PercentFormatter

        axes = figure.subplots()
        names = [row.name if is_wide else row.name[:18] for row in rows]
        left = [0.0] * len(rows)
        for shares, color in zip(_shares(rows, reasons), ("c-rows", *REASON_COLORS)):
            axes.barh(range(len(rows)), shares, left=left, height=0.7, color=COLOR[color], linewidth=0)
            left = [start + share for start, share in zip(left, shares)]
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of the rows of a generator")

    height = 0.8 + 0.3 * len(rows)
    return draw("generators", "Kept and rejected rows by generator", paint, height, height)


def top_reasons(rows: list[GeneratorYield]) -> list[str]:
    """The reasons that the figure shows one by one, by their largest share of a generator's rows."""
    best: dict[str, float] = {}
    for row in rows:
        for reason, number in row.rejected:
            best[reason] = max(best.get(reason, 0.0), number / row.asks)
    return sorted(best, key=lambda reason: (-best[reason], reason))[:MAX_REASONS]


def legend(rows: list[GeneratorYield]) -> list[tuple[str, str]]:
    """(colour, words) of the bars."""
    reasons = top_reasons(rows)
    is_whole = {reason for row in rows for reason, _ in row.rejected} <= set(reasons)
    words = ["kept", *reasons, *([] if is_whole else ["other reasons"])]
    return list(zip(("c-rows", *REASON_COLORS), words))


def _shares(rows: list[GeneratorYield], reasons: list[str]) -> list[list[float]]:
    """For each part of the bars the share of each generator: kept, each of the reasons, the others."""
    counts = [dict(row.rejected) for row in rows]
    parts = [[row.kept for row in rows], *([c.get(reason, 0) for c in counts] for reason in reasons)]
    parts.append([row.asks - sum(part[at] for part in parts) for at, row in enumerate(rows)])
    return [[number / row.asks for number, row in zip(part, rows)] for part in parts]
