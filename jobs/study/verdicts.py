"""Eight definitions of collapse for each cell: which measure of a family stands for which concept."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.generators.chains.cells import Cell

if TYPE_CHECKING:
    from gristmill.evaluation.collapse.definitions import Verdict

# family: {field of evaluation.collapse.definitions.Series: (measure, whether it is relative to generation 1)}
PARTS: dict[str, dict[str, tuple[str, bool]]] = {
    "gaussian": {
        "risk": ("w2_squared", False),
        "variance": ("variance", True),
        "tail": ("tail_2_sd", True),
    },
    "gmm": {"variance": ("variance", True), "modes": ("modes", False)},
    "kde": {"variance": ("variance", True)},
    "multinomial": {
        "risk": ("total_variation", False),
        "variance": ("gini_simpson", True),
        "modes": ("support", True),
        "tail": ("rare_mass", True),
    },
    "linear_classifier": {"risk": ("error", False)},
    "linear_regression": {"risk": ("test_error", False)},
    "ngram": {
        "risk": ("perplexity", False),
        "variance": ("entropy_1", True),
        "modes": ("types_kept", False),
        "tail": ("rare_kept", False),
    },
    "causal_lm": {
        "risk": ("bits_per_byte", False),
        "variance": ("entropy_1", True),
        "modes": ("types_kept", True),
        "tail": ("rare_kept", True),
    },
    "model": {
        "risk": ("frechet", False),
        "variance": ("variance", False),
        "modes": ("recall", False),
        "tail": ("tail", False),
    },
}
INSIDE = {"model": "precision"}  # share of rows inside the truth: outside = 1 - precision
OUTSIDE = {"gmm": "outside"}  # share of rows outside the truth


def verdicts_of(cell: Cell, curves: Mapping[str, Mapping[str, Any]]) -> "list[Verdict]":
    """The eight verdicts from the cell's curves by measure."""
    from gristmill.evaluation.collapse.definitions import Series, verdicts

    def numbers(values: Any) -> list[float | None]:
        return [None if not math.isfinite(v) else float(v) for v in values]

    table: dict[str, Any] = {}
    for name, (measure, is_relative) in PARTS.get(cell.kind, {}).items():
        curve = curves.get(measure)
        if curve is None:
            continue
        values = np.asarray(curve["mean"], float)
        table[name] = numbers(values / values[0] if is_relative and values[0] else values)
        errors = numbers(curve["standard_error"])
        if name == "risk" and None not in errors:
            table["risk_error"] = errors
    inside, outside = curves.get(INSIDE.get(cell.kind, "")), curves.get(OUTSIDE.get(cell.kind, ""))
    if inside is not None:
        table["outside"] = numbers(1 - np.asarray(inside["mean"], float))
    elif outside is not None:
        table["outside"] = numbers(outside["mean"])
    return verdicts(Series(**table))
