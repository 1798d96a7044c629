"""The text axis over real English: docstrings of the standard library."""

import numpy as np
import pytest

from gristmill.evaluation.corpus import Corpora, embedder, equal_amounts, judge_texts, vocabulary_growth
from gristmill.records.words import tokens
from tests.docstrings import docstrings


@pytest.fixture(scope="module")
def sides() -> tuple[list[str], list[str], list[str]]:
    texts = docstrings()
    return texts[0:600:2], texts[1:600:2], texts[600:850]


def judged(train: list[str], holdout: list[str], synthetic: list[str]) -> dict:
    return judge_texts(Corpora("text", train, holdout, synthetic), 0, 10_000, None, lambda _: None).metrics


def test_fresh_real_texts_look_like_the_holdout(sides: tuple[list[str], list[str], list[str]]) -> None:
    found = judged(*sides)
    assert found["copies"]["synthetic"] < 0.1
    assert found["distinct_2"]["synthetic"] == pytest.approx(found["distinct_2"]["train"], abs=0.15)
    assert found["embeddings"]["synthetic"]["coverage"] > 0.5 and found["perplexity"] is None


def test_copies_of_train_texts_are_memorised(sides: tuple[list[str], list[str], list[str]]) -> None:
    train, holdout, _ = sides
    found = judged(train, holdout, train[:200])
    assert found["copies"]["synthetic"] == 1 > 0.2 > found["copies"]["holdout"]
    assert found["memorised"]["synthetic"]["ngrams"] == 1 > found["memorised"]["holdout"]["ngrams"]


def test_a_parrot_has_no_variety(sides: tuple[list[str], list[str], list[str]]) -> None:
    train, holdout, _ = sides
    found = judged(train, holdout, [max(train, key=len)] * 100)
    assert found["self_bleu"]["synthetic"] == pytest.approx(1) and found["self_bleu"]["train"] < 0.8
    assert found["distinct_1"]["synthetic"] < found["distinct_1"]["train"]
    assert found["embeddings"]["synthetic"]["coverage"] < 0.1


def test_equal_amounts_and_the_same_again(sides: tuple[list[str], list[str], list[str]]) -> None:
    words = {name: [tokens(t) for t in own] for name, own in zip(("train", "holdout", "synthetic"), sides)}
    made, num = equal_amounts(words, 0)
    assert {sum(len(w) for w in own) for own in made.values()} == {num}
    assert num == min(sum(len(w) for w in own) for own in words.values())
    assert judged(*sides) == judged(*sides)


def test_growth_by_hand() -> None:
    at, different = vocabulary_growth([tokens("a b a"), tokens("c b")])
    assert at.tolist() == [0, 1, 2, 3, 4, 5] and different.tolist() == [0, 1, 2, 2, 3, 3]


def test_texts_without_a_word_have_no_embedding() -> None:
    assert embedder(["", "  "] * 10, 0) is None
    embed = embedder(["a b", "b c", "c d", "d e"] * 5, 0)
    assert embed is not None and np.isfinite(embed(["a", "zzz", ""])).all()
    found = judged([""] * 20, ["a b"] * 20, ["c"] * 20)
    assert found["embeddings"]["synthetic"] is None and found["distinct_1"]["train"] is None
