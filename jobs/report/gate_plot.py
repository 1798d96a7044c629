"""The figure of a gate audit: how many right and wrong rows each gate keeps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gristmill.jobs.pages.figure import COLOR, draw
from gristmill.jobs.report.gate_audit import GateRates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)  # breakdown shares that a line is drawn for


def plane(gates: Sequence[GateRates]) -> str:
    """psi to the right, phi upwards, with intervals; on a line through the corner the breakdown share is the same.

    A gate has the number of its row in the table. Empty where no labelled row reached a gate.
    """
    shown = [(number, gate) for number, gate in enumerate(gates, 1) if gate.breakdown is not None]
    shown = shown[-1:] if len(gates) == 2 else shown  # one gate is all gates
    if not shown:
        return ""

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        for share in SHARES:
            slope = share / (1 - share)  # phi / psi
            axes.plot([0, 1 / slope], [0, 1], color=COLOR["grid"], linewidth=0.9, zorder=1)
            axes.annotate(
                f"{share:g}", (1 / slope, 1), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8,
                color=COLOR["muted"],
            )  # fmt: skip
        for number, gate in shown:
            phi, psi = gate.right, gate.wrong
            assert phi.value is not None and psi.value is not None
            last = number == len(gates)
            color = COLOR["c-tokens" if last else "c-rows"]
            axes.plot([psi.low, psi.high], [phi.value] * 2, color=color, linewidth=1.2, clip_on=False, zorder=3)
            axes.plot([psi.value] * 2, [phi.low, phi.high], color=color, linewidth=1.2, clip_on=False, zorder=3)
            axes.plot(
                [psi.value],
                [phi.value],
                marker="D" if last else "o",
                markersize=6,
                color=color,
                clip_on=False,
                zorder=4,
            )
            axes.annotate(
                "all" if last else str(number), (psi.value, phi.value), xytext=(8, -12), textcoords="offset points"
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("psi: share of wrong rows kept")
        axes.set_ylabel("phi: share of right rows kept")
        axes.grid(visible=False)

    return draw("gates", "Shares of right and of wrong rows that each gate keeps", paint, None, 3.3)
