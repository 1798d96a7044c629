"""Laws of what chains that replace everything still have: words, types, half of the variance. None is exact beyond the
first generation, so they are shown and do not fail a study."""

from typing import Any

import numpy as np

from gristmill.generators.chains.cells import Cell
from gristmill.jobs.study.laws import Line

PASSED = "passed_half"  # share of chains whose variance has been below half of the truth's, now or before


def kept_lines(cell: Cell) -> dict[str, Line]:
    """{measure: its law} of a cell; nothing where rows are kept, added, gated or drawn with a bias."""
    regime = cell.regime
    is_plain = regime.pool == "replace" and regime.real == "none" and regime.growth == 1 and regime.synthetic_max == 1
    makers: Any = {"gaussian": _passed, "multinomial": _unseen, "ngram": _recalls}
    if cell.kind not in makers or not is_plain or cell.forks or cell.gates:
        return {}
    found: dict[str, Line] = makers[cell.kind](cell, cell.family().facts())
    return found


def _line(expected: list[float], exact: int, source: str) -> Line:
    """`exact`: generations from the first one in which the law is."""
    values = np.array(expected, np.float64)
    return Line(values, np.full(len(values), np.nan), np.arange(len(values)) < exact, source)


def _passed(cell: Cell, facts: Any) -> dict[str, Line]:
    from gristmill.evaluation.laws.passage import first_passage

    if facts["dims"] != 1 or facts["bias"] != 1:
        return {}
    law = first_passage(cell.n, 0.5, facts["estimator"])
    source = "first passage of log v as a Brownian path, with Siegmund's correction (1979); derived here, not exact"
    return {PASSED: _line([law.passed(k) for k in range(1, cell.generations + 1)], 0, source)}


def _unseen(cell: Cell, facts: Any) -> dict[str, Line]:
    from gristmill.evaluation.laws.tails import unseen, unseen_after

    if facts["temperature"] != 1:
        return {}
    shares = np.array(facts["shares"])
    values = [unseen(shares, cell.n)] + [unseen_after(shares, [cell.n] * k) for k in range(2, cell.generations + 1)]
    source = "sum p (1-p)^n, exact for the first generation; then Poisson counts, after Suresh et al. 2025"
    return {"unseen": _line(values, 1, source)}


def _recalls(cell: Cell, facts: Any) -> dict[str, Line]:
    """Without smoothing; discounting takes from rare words, so they go faster."""
    from gristmill.evaluation.collapse.chains_text import recall_name
    from gristmill.evaluation.collapse.text import BUCKETS
    from gristmill.evaluation.laws.discrete import survival_factor

    if facts["temperature"] != 1:
        return {}
    counts = np.array(facts["counts"])
    found = {}
    for low, high in BUCKETS:
        inside = counts[(counts >= low) & (counts <= (np.inf if high is None else high))] * cell.n / facts["rows"]
        if len(inside):
            alive = [float(-np.expm1(-inside * survival_factor(k)).mean()) for k in range(1, cell.generations + 1)]
            source = "1 - exp(-c g_k), a unigram model without smoothing; Suresh et al. 2025, Poisson theorem"
            found[recall_name(low, high)] = _line(alive, 0, source)
    return found
