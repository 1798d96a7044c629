"""Closed forms for the measures of a cell, by generation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.study.spec import StudySpec
from gristmill.records.errors import UserError
from gristmill.records.spec import literals

if TYPE_CHECKING:
    from gristmill.evaluation.laws.chain import Setting

# Measure of a family: its statistic in evaluation/laws.
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

PASSED = "passed_half"  # share of chains whose variance has fallen below half of the truth at least once
LABEL_SOURCE = "Feng et al. 2025, theorem 4.2, and its mean over kept rows, derived here (evaluation/laws/labels.py)"


@dataclass(frozen=True)
class LawCurve:
    """A law over the generations of a cell: arrays (generations,), NaN where the law gives no value."""

    expected: np.ndarray  # float64
    deviation: np.ndarray  # float64, standard deviation across chains
    is_tested: np.ndarray  # bool: the law is exact, and the mean over chains is a fair test of it
    source: str


def setting(cell: Cell) -> "Setting | None":
    """The cell in the terms of evaluation/laws; None for a family or regime without a law."""
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


def law_curves(cell: Cell) -> dict[str, LawCurve]:
    """{measure: law} of every measure with a law."""
    from gristmill.evaluation.laws.registry import laws, use_log

    if cell.kind == "linear_classifier":
        unknown = np.full(cell.generations, np.nan)
        return {
            name: LawCurve(
                values,
                unknown if spread is None else spread,
                np.full(cell.generations, spread is not None),
                LABEL_SOURCE,
            )
            for name, (values, spread) in label_series(cell).items()
        }
    law_setting, curves = setting(cell), survival_curves(cell)
    if law_setting is None:
        return curves
    names = dict(STATISTICS[cell.kind])
    if cell.kind == "gaussian":
        names["log_variance"] = "log_variance" if law_setting.d == 1 else "log_det"
    needs_log = np.array([use_log(law_setting, k) for k in range(1, cell.generations + 1)])
    for measure, statistic in names.items():
        by_generation = laws(law_setting, statistic, cell.generations)
        if by_generation is None:
            continue
        exact = np.array([law.is_exact for law in by_generation])
        # When chains differ by orders of magnitude, a few chains decide the mean of a variance: then its log is tested.
        curves[measure] = LawCurve(
            np.array([law.expected for law in by_generation]),
            np.array([np.nan if law.deviation is None else law.deviation for law in by_generation]),
            exact if measure in ("log_variance", "support", "test_error") else exact & ~needs_log,
            by_generation[-1].source,
        )
    return curves


def check_laws(spec: StudySpec, cells: list[Cell]) -> None:
    """Raise UserError when a cell has no law for a measure of `laws.statistics`."""
    for cell in cells:
        curves = law_curves(cell) if spec.laws.statistics else {}
        for statistic in spec.laws.statistics:
            if statistic not in curves:
                raise UserError(
                    f"laws.statistics: no exact law of '{statistic}' is known for cell '{cell.name}'"
                    + (f"; known: {', '.join(curves)}" if curves else "")
                )


# What survives in chains that replace all rows: words, types, half of the variance. These laws are exact in the first
# generation at most, so they are shown and cannot fail a study.


def survival_curves(cell: Cell) -> dict[str, LawCurve]:
    """{measure: law}; empty when the pool keeps rows, real rows are added, or gates or a sampling bias are set."""
    regime = cell.regime
    is_plain = regime.pool == "replace" and regime.real == "none" and regime.growth == 1 and regime.synthetic_max == 1
    makers: Any = {"gaussian": _passage, "multinomial": _unseen, "ngram": _recalls}
    if cell.kind not in makers or not is_plain or cell.forks or cell.gates:
        return {}
    curves: dict[str, LawCurve] = makers[cell.kind](cell, cell.family().facts())
    return curves


def _curve(expected: list[float], num_exact: int, source: str) -> LawCurve:
    """A law that is exact in the first `num_exact` generations."""
    values = np.array(expected, np.float64)
    return LawCurve(values, np.full(len(values), np.nan), np.arange(len(values)) < num_exact, source)


def _passage(cell: Cell, facts: Any) -> dict[str, LawCurve]:
    from gristmill.evaluation.laws.passage import first_passage

    if facts["dims"] != 1 or facts["bias"] != 1:
        return {}
    law = first_passage(cell.n, 0.5, facts["estimator"])
    source = "first passage of log v as a Brownian path, with Siegmund's correction (1979); derived here, not exact"
    return {PASSED: _curve([law.passage_share(k) for k in range(1, cell.generations + 1)], 0, source)}


def _unseen(cell: Cell, facts: Any) -> dict[str, LawCurve]:
    from gristmill.evaluation.laws.tails import unseen, unseen_after

    if facts["temperature"] != 1:
        return {}
    shares = np.array(facts["shares"])
    values = [unseen(shares, cell.n)] + [unseen_after(shares, [cell.n] * k) for k in range(2, cell.generations + 1)]
    source = "sum p (1-p)^n, exact for the first generation; then Poisson counts, after Suresh et al. 2025"
    return {"unseen": _curve(values, 1, source)}


def _recalls(cell: Cell, facts: Any) -> dict[str, LawCurve]:
    """Recall of words under a model without smoothing. Discounting takes mass from rare words: they vanish faster."""
    from gristmill.evaluation.collapse.chains_text import recall_name
    from gristmill.evaluation.collapse.text import BUCKETS
    from gristmill.evaluation.laws.discrete import survival_factor

    if facts["temperature"] != 1:
        return {}
    counts = np.array(facts["counts"])
    curves = {}
    for low, high in BUCKETS:
        inside = counts[(counts >= low) & (counts <= (np.inf if high is None else high))] * cell.n / facts["rows"]
        if len(inside):
            alive = [float(-np.expm1(-inside * survival_factor(k)).mean()) for k in range(1, cell.generations + 1)]
            source = "1 - exp(-c g_k), a unigram model without smoothing; Suresh et al. 2025, Poisson theorem"
            curves[recall_name(low, high)] = _curve(alive, 0, source)
    return curves


# Linear classifiers under a verifier.


def label_series(cell: Cell) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """{measure: (expectation by generation, deviation across chains where the law is exact)}; empty without a law."""
    from gristmill.evaluation.laws.labels import series, verified_accuracy

    regime, gates = cell.regime, [dict(gate) for gate in cell.gates]
    kinds = [gate.pop("kind") for gate in gates]
    is_plain = regime.pool == "replace" and regime.real in ("none", "fresh") and regime.weights == "pooled"
    is_plain &= not regime.bernoulli and regime.growth == 1 and regime.synthetic_max == 1 and not cell.forks
    if not is_plain or kinds not in ([], ["labels"], ["verifier"]):
        return {}
    rates: dict[str, Any] = {"keep_right": 1.0, "keep_wrong": 1.0}
    if kinds == ["labels"]:
        rates = {"keep_right": gates[0].get("keep_right", 1.0), "keep_wrong": gates[0].get("keep_wrong", 0.0)}
    facts = dict(cell.family().facts())
    expected = series(
        cell.n,
        facts["dims"],
        cell.generations,
        rates["keep_right"],
        rates["keep_wrong"],
        facts["noise"],
        facts["made_noise"],
        regime.real_fraction,
        regime.shortfall == "resample",
    )
    if kinds == ["verifier"]:
        if facts["made_noise"] or regime.real_fraction:
            return {}
        return {"accuracy": (verified_accuracy(expected["accuracy"][0], gates[0]["accuracy"], cell.generations), None)}
    if not kinds:
        return {"accuracy": (expected["accuracy"], None)}
    spread = {name: expected.pop(f"{name}_deviation") for name in rates}
    plain: dict[str, tuple[np.ndarray, np.ndarray | None]] = {name: (values, None) for name, values in expected.items()}
    return plain | {name: (np.full(cell.generations, rate), spread[name]) for name, rate in rates.items()}
