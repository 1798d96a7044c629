"""The quality filter: scores from bytes alone, as the definition says, and a threshold that is the model's own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.stores.opening import open_store
from gristmill.stages.filters.quality import Quality, QualitySpec
from gristmill.stages.ngrams import Linear, Ngrams
from tests.engines.models import classifier, fit_of, judged, quality


def batch(texts: list[str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"text": pa.array(texts, pa.string()), "reject": pa.nulls(len(texts), REJECT.type)}
    )


def opened(path: str, **keys: Any) -> Quality:
    stage = Quality(QualitySpec(path, **keys))
    stage.check()
    stage.open()
    return stage


def test_shuffled_words_go_and_most_prose_stays() -> None:
    rows = judged().slice(800).to_pylist()  # the model has learnt from the first 800
    answer = opened(quality()).run(batch([row["text"] for row in rows])).to_pylist()
    good = np.array([row["judge_score"] >= 4 for row in rows])
    kept = np.array([row["reject"] is None for row in answer])
    assert kept[good].mean() > 0.75 and kept[~good].mean() < 0.25
    assert {row["reject"] for row in answer} == {None, "quality:score"}
    assert all((row["quality_score"] >= 0.5) == (row["reject"] is None) for row in answer)


def test_min_score_overrides_the_model_s_threshold(tmp_path: Path) -> None:
    fit_of(judged(400), str(tmp_path), bits=12, min_score=0.8).run()
    rows = batch(judged(400)["text"].to_pylist())
    scores = opened(str(tmp_path)).run(rows).column("quality_score").to_numpy()
    for keys, least in (({}, 0.8), ({"min_score": 0.3}, 0.3), ({"min_score": 0.0}, 0.0)):
        reject = opened(str(tmp_path), **keys).run(rows).column("reject")
        assert reject.null_count == (scores >= np.float32(least)).sum()
    assert Quality(QualitySpec(str(tmp_path)), "taste").columns()[0].name == "taste_score"


def test_another_model_is_another_identity(tmp_path: Path) -> None:
    fit_of(judged(400), str(tmp_path), bits=14, min_score=0.6).run()  # the same rows and weights
    stages = [Quality(QualitySpec(path)) for path in (quality(), str(tmp_path))]
    assert stages[0].identity() != stages[1].identity()


def test_models_that_are_not_there_or_other_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'holds no finished model.*kind = "quality"'):
        opened(str(tmp_path))
    with pytest.raises(UserError, match="holds a model of kind 'classifier'"):
        opened(classifier())
    store = open_store(str(tmp_path))
    for name in ("model.json", "weights.safetensors"):
        store.put(name, open_store(quality()).read(name))
    opened(str(tmp_path))
    data = bytearray(store.read("weights.safetensors"))
    data[-1] ^= 1
    store.put("weights.safetensors", bytes(data))
    with pytest.raises(UserError, match="digest of the weights differs"):
        opened(str(tmp_path))


@pytest.mark.parametrize(("keys", "words"), [({"path": ""}, "must not be empty"), ({"min_score": 1.5}, "0 to 1")])
def test_a_bad_spec_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QualitySpec(**{"path": "x", **keys})


WORDS = st.lists(st.sampled_from(["the", "mill", "of", "grain", "Ünd", "wheel.", "\n", "日本", "x1"]), max_size=30)
TEXTS = st.one_of(st.none(), st.text(max_size=60), WORDS.map(" ".join))


@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(0, 3), st.integers(1, 3), st.integers(0, 8))
def test_scores_are_those_of_the_features(texts: list[str | None], start: int, words: int, num_bytes: int) -> None:
    """The kernel that scores in one pass, and the buckets that a fit sees: one definition."""
    random = np.random.default_rng(words * 10 + num_bytes)
    ngrams = Ngrams(12, words, num_bytes)
    model = Linear.of(random.normal(0, 3, 1 << 12), random.normal(0, 1, 3), 0.3)
    column = pa.array(texts, pa.string()).slice(start)
    features = ngrams.features(column)
    expected = []
    for row in range(len(column)):
        own = features.buckets[features.ends[row] : features.ends[row + 1]]
        assert len(set(own.tolist())) == len(own)
        whole = int(model.weights[own].astype(np.int64).sum())
        logit = model.bias + whole * model.unit / math.sqrt(max(len(own), 1)) + features.shapes[row] @ model.slopes
        expected.append(1 / (1 + math.exp(-logit)))
    found = ngrams.scores(column, model)
    assert np.allclose(found, expected, atol=6e-5) and np.array_equal(found, np.round(found, 4))
    assert np.isfinite(features.shapes).all() and ((features.shapes >= 0) & (features.shapes <= 1)).all()
    for row, text in enumerate(column.to_pylist()):
        alone = pa.array([text], pa.large_string())
        assert ngrams.scores(alone, model)[0] == found[row], "a text's score hangs on its bytes alone"


def test_features_by_hand() -> None:
    """Words and pairs of words, each once, whatever stands between them; and white space and case are bytes."""
    plain = Ngrams(20, 2, 0)

    def buckets(text: str, ngrams: Ngrams = plain) -> set[int]:
        return set(ngrams.features(pa.array([text])).buckets.tolist())

    assert len(buckets("a b a b")) == 4  # a, b, "a b", "b a"
    assert buckets("the mill. The MILL") == buckets("the mill the mill")
    assert buckets("mill") < buckets("the mill") and buckets("the mill") != buckets("mill the")
    assert buckets("") == buckets(" .,") == set()
    both = Ngrams(20, 1, 3)
    assert len(buckets("abc", both)) == 2 and len(buckets("ab", both)) == 1
    assert len(buckets("ABC", both) ^ buckets("abc", both)) == 2  # the word is one, the bytes differ
    shapes = plain.features(pa.array(["a b a b", "", "..aa"])).shapes
    assert np.allclose(shapes, [[math.log2(5) / 16, 0.5, 4 / 7], [0, 0, 0], [1 / 16, 1, 0.5]])


def test_long_columns_are_read_in_parts() -> None:
    texts = [f"row {n} of many" for n in range(9000)]
    ngrams = Ngrams(16, 2, 4)
    whole = ngrams.features(pa.array(texts))
    some = ngrams.features(pa.array(texts[8500:8600]))
    own = whole.buckets[whole.ends[8500] : whole.ends[8600]]
    assert np.array_equal(own, some.buckets) and np.array_equal(whole.shapes[8500:8600], some.shapes)
    assert np.array_equal(np.diff(whole.ends[8500:8601]), np.diff(some.ends))


def test_the_hashes_are_fixed_for_good() -> None:
    """Models in use read these buckets: a change here needs a new format of models."""
    found = Ngrams(18, 2, 5).features(pa.array(["The mill by the river, 1852."])).buckets
    assert sorted(found.tolist())[:6] == [22883, 25080, 39906, 43371, 59306, 60042]
