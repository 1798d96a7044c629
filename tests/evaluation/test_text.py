"""Metrics of texts against the papers' examples and values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.evaluation import text
from gristmill.records.words import tokens
from tests.oracles.bleu import bleu
from tests.profiles import scaled


def words(line: str) -> list[str]:
    return tokens(line)


def test_tokens() -> None:
    assert words("It's 3 o'clock.") == ["it", "'", "s", "3", "o", "'", "clock", "."]


def test_bleu_of_the_papers_examples() -> None:
    # Papineni et al. 2002, section 2.1: "the" is clipped to 2 of 7
    references = [words("the cat is on the mat"), words("there is a cat on the mat")]
    assert bleu(words("the the the the the the the"), references, 1) == pytest.approx(2 / 7)
    # Example 1: 17 of 18 and 10 of 17 for the good candidate
    good = words("It is a guide to action which ensures that the military always obeys the commands of the party")
    three = [
        words("It is a guide to action that ensures that the military will forever heed Party commands"),
        words("It is the guiding principle which guarantees the military forces")
        + words("always being under the command of the Party"),
        words("It is the practical guide for the army always to heed the directions of the party"),
    ]
    assert bleu(good, three, 1) == pytest.approx(17 / 18)
    assert bleu(good, three, 2) == pytest.approx(math.sqrt(17 / 18 * 10 / 17))
    assert bleu(words("a b c d"), [words("a b c d")]) == 1
    assert bleu(words("a b"), [words("a b c d")], 2) == pytest.approx(math.exp(1 - 4 / 2))  # brevity
    assert bleu(words("a b c x"), [words("a b c d")]) == 0 < bleu(words("a b c x"), [words("a b c d")], 4, 0.1)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=4, max_size=9), min_size=2, max_size=6))
@settings(max_examples=scaled(50))
def test_self_bleu_is_bleu_against_all_others(texts: list[list[str]]) -> None:
    each = [bleu(t, texts[:i] + texts[i + 1 :], 4, 0.1) for i, t in enumerate(texts)]
    assert text.self_bleu(texts) == pytest.approx(np.mean(each))


def test_variety_by_hand() -> None:
    texts = [words("a b a b"), words("a c")]
    assert text.distinct_n(texts, 1) == 3 / 6 and text.distinct_n(texts, 2) == 3 / 4
    assert text.entropy(texts, 1) == pytest.approx(0.5 + 2 / 6 * math.log2(3) + 1 / 6 * math.log2(6))
    assert text.distinct_n([[]], 1) is None and text.entropy([], 2) is None and text.self_bleu([words("a")]) is None


def test_mtld_by_hand() -> None:
    # "a b a b": shares 1, 1, 2/3: a factor of three words; then one word that has used up none of the next
    assert text.mtld(words("a b a b")) == 4
    assert text.mtld(["a"] * 10) == 2  # every second word ends a factor
    assert text.mtld(words("a b c d e")) == 5  # no repetition: no factor, its length
    # forwards a b c a: shares 1, 1, 1, 3/4: a part (1 - 3/4) / 0.28 of a factor; the same backwards
    assert text.mtld(words("a b c a")) == pytest.approx(4 / ((1 - 3 / 4) / 0.28))
    assert text.mtld([]) is None


def test_memorised_by_hand() -> None:
    sources = [words("one two three four five"), words("six seven")]
    shares = text.memorised_shares([words("one two three four"), words("two three six seven")], iter(sources), 3)
    assert shares == {"ngrams": 2 / 4, "texts": 1 / 2}
    assert text.memorised_shares([words("a b")], sources, 8) is None


def test_perplexity_by_hand() -> None:
    assert text.perplexity([[math.log(0.5)], [math.log(0.125), math.log(0.25)]]) == pytest.approx(4)
    assert text.perplexity([]) is None
    for wrong in (float("nan"), 0.5):
        with pytest.raises(ValueError, match="no log-probability"):
            text.perplexity([[wrong]])


def test_embedding_coverage_does_not_look_at_lengths() -> None:
    real = np.random.default_rng(0).normal(size=(60, 4))
    found = text.embedding_coverage(real, 7 * real)
    assert found and found["coverage"] == found["recall"] == 1
    away = text.embedding_coverage(np.abs(real), -np.abs(real))
    assert away and away["coverage"] == 0
