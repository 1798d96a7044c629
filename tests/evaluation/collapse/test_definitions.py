"""Eight verdicts of series whose answer is known, of series that are too short, and of laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.collapse.definitions import Series, Thresholds, verdicts
from gristmill.evaluation.laws import gaussian, regression, tails
from tests.oracles.laws.discrete import zipf


def said(series: Series, at: Thresholds | None = None) -> dict[str, str]:
    return {verdict.name: verdict.verdict for verdict in verdicts(series, at)}


def test_nothing_measured_is_unknown() -> None:
    found = verdicts(Series())
    assert len(found) == 8 and len({v.name for v in found}) == 8
    assert all(v.verdict == "unknown" and v.number is None and v.threshold is None for v in found)
    assert all(v.source and v.reading for v in found)


def test_replace_and_accumulate_differ_as_gerstgrasser_says() -> None:
    generations = range(1, 17)
    replaced = said(Series(risk=[regression.replace_error(111, 10, k) for k in generations]))
    kept = said(Series(risk=[regression.accumulate_error(111, 10, k) for k in generations]))
    assert replaced["diverging risk"] == "yes" and kept["diverging risk"] == "no"
    assert replaced["catastrophic rise of the risk"] == "yes" and kept["catastrophic rise of the risk"] == "no"
    assert replaced["any rise of the risk"] == kept["any rise of the risk"] == "yes"


@pytest.mark.parametrize(
    ("power", "verdict"), [(0.0, "yes"), (0.5, "yes"), (1.0, "yes"), (1.8, "no"), (2.0, "no"), (3.0, "no")]
)
@pytest.mark.parametrize("generations", [8, 16, 64])
def test_divergence_is_told_by_doublings(power: float, verdict: str, generations: int) -> None:
    risk = np.cumsum(np.arange(1, generations + 1.0) ** -power)
    assert said(Series(risk=list(risk)))["diverging risk"] == verdict


def test_short_flat_and_late_series() -> None:
    assert said(Series(risk=[1, 2, 3, 4, 5, 6, 7]))["diverging risk"] == "unknown"
    flat = said(Series(risk=[1.0] * 8))
    assert flat["any rise of the risk"] == "no" and flat["diverging risk"] == "no"
    late = said(Series(risk=[1.0, 1, 1, 1, 1, 1, 2, 9]))
    assert late["diverging risk"] == "yes"
    fallen = said(Series(risk=[2.0, 1, 1, 1, 1, 1, 1, 1]))
    assert fallen["any rise of the risk"] == "no" and fallen["diverging risk"] == "no"
    endless = said(Series(risk=[1, 2, 3, 4, 5, 6, 7, math.inf]))
    assert endless["catastrophic rise of the risk"] == "yes" and endless["diverging risk"] == "yes"
    assert said(Series(risk=[0.0, 1.0]))["any rise of the risk"] == "unknown"


def test_a_spike_is_catastrophic_though_it_passes() -> None:
    found = said(Series(risk=[36.5, 78.0, 45.0]))
    assert found["catastrophic rise of the risk"] == "yes"
    assert said(Series(risk=[36.5, 61.05, 45.0]))["catastrophic rise of the risk"] == "no"


def test_a_rise_within_the_noise_is_none() -> None:
    noisy = Series(risk=[1.0, 1.1], risk_error=[0.05, 0.05])
    assert said(noisy)["any rise of the risk"] == "no"
    assert said(Series(risk=[1.0, 1.1], risk_error=[0.01, 0.01]))["any rise of the risk"] == "yes"
    assert said(Series(risk=[1.0, 1.1]))["any rise of the risk"] == "yes"
    threshold = next(v.threshold for v in verdicts(noisy) if v.name == "any rise of the risk")
    assert threshold == pytest.approx(3 * math.hypot(0.05, 0.05))


def test_perplexity_improves_while_entropy_collapses() -> None:
    """The half-real n-gram chain that fell into loops: the risk sees nothing, the variance does."""
    found = said(Series(risk=[143.0, 120, 100, 90], variance=[1.0, 0.8, 0.6, 4.19 / 9.0]))
    assert found["any rise of the risk"] == "no" and found["collapsing variance"] == "yes"


def test_variance_modes_tails_and_strangers() -> None:
    n = 10
    for k, verdict in ((5, "no"), (10, "yes")):
        variance = [gaussian.mean_variance(n, g) for g in range(1, k + 1)]
        assert said(Series(variance=variance))["collapsing variance"] == verdict
    assert said(Series(variance=[1.0, None]))["collapsing variance"] == "unknown"
    assert said(Series(modes=[0.8, 0.8, 0.75]))["lost modes"] == "no"
    assert said(Series(modes=[0.8, 0.8, 0.7]))["lost modes"] == "yes"
    assert said(Series(modes=[0.0, 0.0]))["lost modes"] == "unknown"
    assert said(Series(tail=[0.9, 0.5]))["lost tails"] == "no"
    assert said(Series(tail=[0.9, 0.4]))["lost tails"] == "yes"
    assert said(Series(outside=[0.02, 0.06]))["hallucinated data"] == "no"
    assert said(Series(outside=[0.02, 0.08]))["hallucinated data"] == "yes"
    assert said(Series(outside=[0.02]))["hallucinated data"] == "unknown"


def test_a_tale_of_tails_changes_the_scaling() -> None:
    p, sizes = zipf(100_000, 2.0), [1000, 4000, 16_000, 64_000]
    real = [tails.unseen(p, n) for n in sizes]
    last = [tails.unseen_after(p, [1000, n]) for n in sizes]  # a generator that saw 1,000 rows
    assert said(Series(sizes=sizes, risk_of_real=real, risk_of_last=last))["changed scaling law"] == "yes"
    assert said(Series(sizes=sizes, risk_of_real=real, risk_of_last=real))["changed scaling law"] == "no"
    assert (
        said(Series(sizes=sizes[:2], risk_of_real=real[:2], risk_of_last=last[:2]))["changed scaling law"] == "unknown"
    )
    assert (
        said(Series(sizes=sizes, risk_of_real=real, risk_of_last=[0.0, *last[1:]]))["changed scaling law"] == "unknown"
    )
    found = next(v for v in verdicts(Series(sizes=sizes, risk_of_real=real, risk_of_last=real)) if "scaling" in v.name)
    assert found.number == pytest.approx(1)


def test_thresholds_decide() -> None:
    series = Series(risk=[1.0, 1.5], variance=[1, 0.7], modes=[1, 0.95], tail=[1, 0.6], outside=[0, 0.04])
    strict = Thresholds(catastrophic=1.4, variance=0.8, modes=0.99, tail=0.7, outside=0.01)
    names = {"catastrophic rise of the risk", "collapsing variance", "lost modes", "lost tails", "hallucinated data"}
    assert {name: said(series)[name] for name in names} == dict.fromkeys(names, "no")
    assert {name: said(series, strict)[name] for name in names} == dict.fromkeys(names, "yes")


NUMBERS = st.lists(st.none() | st.floats(0, 1e6), max_size=20)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_always_eight_and_never_nan(risk: list, variance: list, modes: list, tail: list, outside: list) -> None:
    found = verdicts(Series(risk=risk, variance=variance, modes=modes, tail=tail, outside=outside))
    assert len(found) == 8
    for verdict in found:
        assert (verdict.number is None) == (verdict.verdict == "unknown") == (verdict.threshold is None)
        assert verdict.number is None or not math.isnan(verdict.number)


def test_series_that_do_not_fit_are_refused() -> None:
    for wrong in (
        {"risk": [1.0, math.nan]},
        {"risk": [1.0, 2.0], "risk_error": [0.1]},
        {"sizes": [1, 2], "risk_of_real": [1.0, 0.5], "risk_of_last": [1.0]},
    ):
        with pytest.raises(ValueError, match="."):
            Series(**wrong)
