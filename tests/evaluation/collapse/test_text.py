"""Metrics of a generation's texts by hand, and rare words against the law of their loss."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.collapse import text as law
from gristmill.evaluation.collapse.text import RealWords

REAL = RealWords.of([["a"] * 30, ["b"] * 6, ["c", "c", "d", "e"]])


def test_types_and_rare_words_by_hand() -> None:
    texts = [["a", "d"], ["z", "a"]]
    assert law.types_kept(texts, REAL) == 2 / 5
    assert law.rare_kept(texts, REAL) == 1 / 3  # of c, d, e
    assert law.rare_kept(texts, REAL, most=1) == 1 / 2
    assert law.rare_kept(texts, RealWords.of([["a"] * 9])) is None
    found = law.rare_recall(texts, REAL)
    assert [(r["low"], r["num_types"], r["recall"]) for r in found] == [
        (1, 2, 0.5),
        (2, 1, 0.0),
        (6, 1, 0.0),
        (21, 1, 1.0),
        (101, 0, None),
    ]
    assert "expected" not in found[0]


@pytest.mark.parametrize("generation", [1, 2, 5])
def test_rare_words_are_lost_as_the_law_says(generation: int) -> None:
    """A unigram chain that replaces everything: recall by training count, over 60 chains."""
    counts = np.concatenate([np.full(300, 1), np.full(200, 3), np.full(60, 12), np.full(20, 50), np.full(4, 400)])
    words = [str(i) for i in range(len(counts))]
    real = RealWords.of([[w for w, c in zip(words, counts) for _ in range(c)]])
    random, total = np.random.default_rng(generation), int(counts.sum())
    recalls = []
    for _ in range(60):
        now = counts
        for _ in range(generation):
            now = random.multinomial(total, now / total)
        text = [w for w, c in zip(words, now) for _ in range(c)]
        recalls.append([row["recall"] for row in law.rare_recall([text], real, generation)])
    expected = [row["expected"] for row in law.rare_recall([words], real, generation)]
    assert np.mean(recalls, axis=0) == pytest.approx(expected, abs=0.02)
    assert expected == sorted(expected)


def test_repetition_by_hand() -> None:
    assert law.repetition(list("abcdefgh")) == 0
    assert law.repetition(list("aaaaaaaa")) == pytest.approx(1 - 1 / 5)
    assert law.repetition(list("abc")) is None


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_loops_are_found_as_by_hand(words: list[str]) -> None:
    naive = any(
        words[i : i + w] == words[i + w : i + 2 * w] == words[i + 2 * w : i + 3 * w]
        for w in range(1, 17)
        for i in range(len(words) - 3 * w + 1)
    )
    assert law.has_loop(words) == naive


def test_perplexities() -> None:
    def score(words: list[str]) -> list[float]:
        return [-math.log(10)] * (len(words) - 1) + [-math.log(1000)]

    texts = [["a", "b"], ["a"], []]
    found = law.perplexities(texts, score)
    assert found == pytest.approx([math.sqrt(10_000), 1000])
    assert law.perplexities([["a"]], lambda words: [-math.inf])[0] > 1e300  # finite: nothing here is inf or NaN
    for wrong in (0.5, math.nan):
        with pytest.raises(ValueError, match="no log-probability"):
            law.perplexities([["a"]], lambda words, wrong=wrong: [wrong])
    shown = law.histogram(np.array([0.5, 15.0, 15.0, 10.0**7]))
    assert shown["below"] == 0.25 and shown["above"] == 0.25 and sum(shown["shares"]) == 0.5
    assert shown["edges"][shown["shares"].index(0.5)] <= math.log10(15)
    assert law.histogram(np.zeros(0))["shares"] is None


def test_a_generation_of_texts() -> None:
    texts = [["a", "b", "c", "d", "e"], ["a"] * 12]
    found = law.of_texts(texts, REAL, 2, lambda words: [-1.0] * len(words))
    assert found["num_tokens"] == 17 and found["num_types"] == 5 and found["mean_length"] == 8.5
    assert found["types_kept"] == 1 and found["loops"] == 0.5
    assert found["repetition"] == pytest.approx((0 + 8 / 9) / 2)
    assert found["gini_simpson"] == pytest.approx(1 - (13 / 17) ** 2 - 4 / 17**2)
    assert found["perplexity_median"] == pytest.approx(math.e)
    assert found["distinct_1"] == 5 / 17 and found["entropy_2"] > 0
    assert "perplexity_median" not in law.of_texts(texts, REAL)
    with pytest.raises(ValueError, match="no tokens"):
        law.of_texts([[]], REAL)
    with pytest.raises(ValueError, match="no tokens"):
        RealWords.of([[]])
