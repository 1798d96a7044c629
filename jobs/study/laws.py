"""The closed forms that hold for a cell, laid beside what its chains came to."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.study.label_laws import SOURCE, label_series
from gristmill.jobs.study.spec import StudySpec
from gristmill.records.errors import UserError
from gristmill.records.spec import literals

# What a family calls a measure, and what evaluation/laws calls its statistic.
MOMENTS = {
    "variance": "variance_trace",
    "mean_error": "mean_variance_between",
    "total_variance": "total_variance",
}
STATISTICS = {
    "gaussian": {**MOMENTS, "w2_squared": "w2_squared"},
    "gmm": MOMENTS,
    "kde": MOMENTS,
    "multinomial": {
        "gini_simpson": "gini_simpson",
        "mean_error": "mean_variance_between",
        "total_variance": "total_variance",
        "support": "support",
    },
    "linear_regression": {"test_error": "test_error"},
}


@dataclass(frozen=True)
class Line:
    """A law over the generations of a cell: float64 (generations,) each, NaN where it says nothing."""

    expected: np.ndarray
    deviation: np.ndarray  # across chains
    is_tested: np.ndarray  # bool: exact, and a mean over chains can be held against it
    source: str


def setting(cell: Cell) -> Any:
    """The cell as evaluation/laws describes it; None for a family or a regime that it cannot."""
    from gristmill.evaluation.laws.chain import Setting

    if cell.kind not in STATISTICS or cell.forks or cell.gates or cell.regime.synthetic_max < 1:
        return None
    facts: dict[str, Any] = dict(cell.family().facts())
    keys = ("pool", "real", "real_fraction", "window", "with_replacement", "bernoulli", "weights", "growth")
    table = {key: value for key, value in literals(cell.regime).items() if key in keys}
    if cell.kind == "gaussian":
        dims = facts["dims"]
        table |= {"d": dims, "estimator": facts["estimator"], "bias": facts["bias"], "truth": float(dims)}
        table |= {"truth_squares": 1 / dims, "truth_log_det": 0.0}
    elif cell.kind == "kde":
        table |= {"d": facts["dims"], "truth": float(facts["dims"]), "bias": facts["bias"]}
    elif cell.kind == "gmm":
        table |= {"d": facts["dims"], "truth": facts["truth"], "bias": facts["bias"]}
    elif cell.kind == "multinomial":
        shares = facts["shares"]
        if facts["temperature"] != 1:
            return None
        table |= {"truth": 1 - sum(p * p for p in shares), "probabilities": tuple(shares)}
    else:
        table |= {"d": facts["dims"], "truth": facts["noise"] ** 2, "design": facts["design"]}
    return Setting(**{"family": cell.kind, "n": cell.n, **table})


def lines(cell: Cell) -> dict[str, Line]:
    """The law of each measure for which one is known."""
    from gristmill.evaluation.laws.registry import laws, use_log
    from gristmill.jobs.study.laws_kept import kept_lines

    if cell.kind == "linear_classifier":
        unknown = np.full(cell.generations, np.nan)
        return {
            name: Line(
                values, unknown if spread is None else spread, np.full(cell.generations, spread is not None), SOURCE
            )
            for name, (values, spread) in label_series(cell).items()
        }
    described, found = setting(cell), kept_lines(cell)
    if described is None:
        return found
    names = dict(STATISTICS[cell.kind])
    if cell.kind == "gaussian":
        names["log_variance"] = "log_variance" if described.d == 1 else "log_det"
    worn = np.array([use_log(described, k) for k in range(1, cell.generations + 1)])
    for measure, statistic in names.items():
        known = laws(described, statistic, cell.generations)
        if known is None:
            continue
        exact = np.array([law.is_exact for law in known])
        # Where chains differ by orders of magnitude the mean of a variance hangs on a few of them: its log is tested.
        found[measure] = Line(
            np.array([law.expected for law in known]),
            np.array([np.nan if law.deviation is None else law.deviation for law in known]),
            exact if measure in ("log_variance", "support", "test_error") else exact & ~worn,
            known[-1].source,
        )
    return found


def check_known(spec: StudySpec, cells: list[Cell]) -> None:
    """Raise UserError when the study asks for a law where none is known."""
    for cell in cells:
        known = lines(cell) if spec.laws.statistics else {}
        for statistic in spec.laws.statistics:
            if statistic not in known:
                raise UserError(
                    f"laws.statistics: no exact law of '{statistic}' is known for cell '{cell.name}'"
                    + (f"; known: {', '.join(known)}" if known else "")
                )
