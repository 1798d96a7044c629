"""report.html of a comparison: one table, one plot, the settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from gristmill.jobs.compare.inputs import REAL
from gristmill.jobs.compare.show import between
from gristmill.jobs.pages.figure import COLOR, draw
from gristmill.jobs.pages.page import render
from gristmill.records.printable import json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS = ("identity", "corpora", "model", "versions")


def page(compare_file: dict[str, Any]) -> str:
    """The page of compare.json's content."""
    facts = {
        "c": compare_file,
        "probes": list(compare_file["summary"][0]["probes"]) if compare_file["summary"] else [],
        "settings": json_text({name: compare_file[name] for name in SETTINGS}, indent=2),
        "figures": {"bits": Markup(figure(compare_file)) if compare_file["summary"] else ""},
    }
    return render(Path(__file__).with_name("compare.html"), facts, {"between": between})


def figure(compare_file: dict[str, Any]) -> str:
    """Bits per byte of each corpus with its interval, and each student as a dot; real text in another colour."""
    rows = compare_file["summary"][::-1]  # the best on top

    def paint(figure: "Figure", is_wide: bool) -> None:
        axes = figure.subplots()
        for at, row in enumerate(rows):
            color = COLOR["c-rows"] if row["corpus"] != REAL else COLOR["c-alert"]
            bits = [s["bits_per_byte"] for s in compare_file["students"] if s["corpus"] == row["corpus"]]
            axes.plot(bits, [at] * len(bits), linestyle="", marker="o", markersize=3.5, color=color, alpha=0.5)
            mean, half = row["bits_per_byte"]["mean"], row["bits_per_byte"]["half"] or 0.0
            axes.errorbar(mean, at, xerr=half, color=color, marker="D", markersize=5, capsize=3, linewidth=1.4)
        axes.set_yticks(range(len(rows)), [row["corpus"][: 40 if is_wide else 14] for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("bits per byte of held-out real text; less is better")

    height = 0.9 + 0.34 * len(rows)
    return draw("bits", "Bits per byte of held-out real text by corpus", paint, height, height)
