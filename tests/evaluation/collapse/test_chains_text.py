"""The meter of a study's texts: the same numbers as evaluation/collapse_text, flat, and nothing of nothing."""

import math

import pytest

from gristmill.evaluation.collapse import text as collapse_text
from gristmill.evaluation.collapse.chains_text import RECALLS, TextMetrics

REAL = [["a"] * 30, ["b"] * 6, ["c", "c", "d", "e"]]
TEXTS = [["a", "d", "a", "b"], ["z", "a"], []]


def test_it_says_what_the_metrics_say() -> None:
    found = TextMetrics(REAL)(TEXTS)
    told = collapse_text.of_texts(TEXTS, collapse_text.RealWords.of(REAL))
    for name in ("types_kept", "rare_kept", "entropy_1", "distinct_2", "gini_simpson", "loops", "num_tokens"):
        assert found[name] == told[name]
    assert [found[name] for name in RECALLS if name in found] == [0.5, 0.0, 1.0, 1.0]
    assert "recall_101_up" not in found and not any(name.startswith(("expected", "made")) for name in found)
    assert math.isnan(TextMetrics(REAL)([["a"]])["distinct_2"])
    assert all(isinstance(value, float) for value in found.values())


def test_the_law_of_recall_stands_beside_it() -> None:
    found = TextMetrics(REAL)(TEXTS, generation=1)
    assert found["expected_1"] == pytest.approx(1 - math.exp(-1))
    assert TextMetrics(REAL)(TEXTS, generation=4)["expected_1"] < found["expected_1"]


def test_perplexity_of_each_text_by_hand() -> None:
    meter, half = TextMetrics(REAL), math.log(0.5)
    given = [[half] * 4, [math.log(0.1), math.log(0.001)], []]
    found = meter(TEXTS, given)
    assert found["made_perplexity"] == pytest.approx((2 + 100) / 2) == found["made_perplexity_median"]
    assert 2 < found["made_perplexity_q05"] < found["made_perplexity_q95"] < 100
    shares = meter.histogram(given)
    assert sum(shares["shares"]) == pytest.approx(1) and shares["shares"][3] == 0.5
    with pytest.raises(ValueError, match="no log-probability"):
        meter(TEXTS, [[0.1], [0.0], []])


def test_nothing_of_nothing() -> None:
    assert TextMetrics(REAL)([[], []]) == {}
    with pytest.raises(ValueError, match="no tokens"):
        TextMetrics([[]])
