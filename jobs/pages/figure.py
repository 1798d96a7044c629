"""Figures of pages as inline SVG. The page's style sheet gives their colours and their font.

A figure is drawn for a wide and for a narrow page; the style sheet shows the drawing that fits. The same data give the
same bytes.
"""

import html
import io
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gristmill.records.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Placeholder colours that become `var(--name)`: a figure must be readable on light paper, on dark, and in print.
PHASES = ("making", "processing", "waiting", "committing")  # of a lot
NAMES = ("paper", "ink", "muted", "grid", "c-rows", "c-tokens", "c-engine", "c-alert", *PHASES)
COLOR = {name: f"#0a0b{number:02x}" for number, name in enumerate(NAMES)}
WIDE_IN, NARROW_IN = 9.4, 3.7
_DRAWING = threading.Lock()  # the settings of matplotlib are those of the process, and runs may end in several threads


def _style() -> Any:  # matplotlib's own type for it lists every key
    return {
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.titlecolor": COLOR["ink"],
        "axes.labelcolor": COLOR["muted"],
        "axes.edgecolor": COLOR["muted"],
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False,
        "grid.color": COLOR["grid"],
        "grid.linewidth": 0.7,
        "xtick.color": COLOR["muted"],
        "ytick.color": COLOR["muted"],
        "text.color": COLOR["ink"],
        "text.parse_math": False,
    }


def draw(
    name: str, description: str, paint: Callable[["Figure", bool], None], wide_in: float | None, narrow_in: float
) -> str:
    """The SVGs of a figure, `wide_in` and `narrow_in` inches high. Without `wide_in` it is narrow on every page.

    `paint(figure, is_wide)` fills it; `description` is its text for screen readers.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    svgs = []
    for is_wide, width, height in ((True, WIDE_IN, wide_in), (False, NARROW_IN, narrow_in)):
        if height is None:
            continue
        label = f"{name}-{'wide' if is_wide else 'narrow'}"
        with _DRAWING, matplotlib.rc_context({**_style(), "svg.hashsalt": label, "svg.id": label}):
            figure = Figure(figsize=(width, height), layout="constrained")
            FigureCanvasSVG(figure)
            paint(figure, is_wide)
            _make_printable(figure)
            sink = io.StringIO()
            figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
        kind = "one" if wide_in is None else "wide" if is_wide else "narrow"
        svgs.append(_inlined(sink.getvalue(), label, description, kind))
    return "".join(svgs)


def _make_printable(figure: "Figure") -> None:
    """Replace control characters in all texts of a figure: a lone surrogate would end the drawing."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    for axis in figure.findobj(Axis):
        for formatter in (axis.get_major_formatter(), axis.get_minor_formatter()):  # they label ticks at each drawing
            vars(formatter)["format_ticks"] = partial(_printable_ticks, formatter.format_ticks)
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))


def _printable_ticks(format_ticks: Callable[[Any], list[str]], values: Any) -> list[str]:
    return [printable(label) for label in format_ticks(values)]


def _inlined(svg: str, label: str, description: str, kind: str) -> str:
    """The SVG as part of a page: without prologue, with unique ids and with the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box
    head = f'<svg class="{kind}" role="img" aria-label="{html.escape(description)}" {box[0]}>'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{label}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    for name, color in COLOR.items():
        svg = svg.replace(color, f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", svg)
