"""The quality classifier: what it is worth on held-out rows, the same model from the same rows, and what it refuses."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.generators.families.fit_check import check_fit
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.families.quality import MIN_ROWS_OF_THRESHOLD, Quality, QualitySpec, lowest, report
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from tests.engines.models import JUDGED, fit_of, judged


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("quality")
    fit_of(judged(), str(made)).run()
    return made


def test_it_tells_prose_from_shuffled_words_that_it_never_saw(folder: Path) -> None:
    card = read_card(str(folder))
    held = card.facts["held_out"]
    assert 300 < held["rows"] < 500 and 0.4 < held["base_rate"] < 0.6
    assert held["auc"] > 0.95 and held["precision"] > 0.88 and held["recall"] > 0.85  # measured: .97, .93, .88
    assert held["rows"] + card.facts["learnt_from"]["rows"] == 2000 and card.facts["left_out"] == 0
    lines = Quality.summary(card.facts)
    assert f"AUC {held['auc']:.3f}" in lines["held-out rows"] and "score 0.5 on" in lines["kept of them"]


def test_labels_that_say_nothing_give_no_better_than_the_base_rate(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).permutation(judged()["judge_score"].to_numpy())
    card = fit_of(judged().set_column(1, "judge_score", pa.array(scores)), str(tmp_path), bits=14).run()
    assert abs(card.facts["held_out"]["auc"] - 0.5) < 0.15


def test_the_same_rows_make_the_same_model(folder: Path, tmp_path: Path) -> None:
    again, other = fit_of(judged(), str(tmp_path / "again")), fit_of(judged(), str(tmp_path / "other"), seed=1)
    again.run()
    other.run()
    digests = [
        hashlib.sha256((place / "weights.safetensors").read_bytes()).hexdigest()
        for place in (folder, tmp_path / "again", tmp_path / "other")
    ]
    assert digests[0] == digests[1] != digests[2], "another seed holds out other rows"
    assert read_card(str(folder)).facts == read_card(str(tmp_path / "again")).facts


def test_a_model_that_came_back_scores_alike(folder: Path) -> None:
    card = read_card(str(folder))
    back = load_model(str(folder), card)
    again = back.model_state()
    assert isinstance(back, Quality) and back.model is not None
    assert again.facts == card.facts and again.tensors["weights"].dtype == np.int16
    scores = back.ngrams.scores(judged()["text"].combine_chunks(), back.model)
    good = judged()["judge_score"].to_numpy() >= 4
    assert ((scores >= card.facts["threshold"]) == good).mean() > 0.95, "most of these it has learnt from"


def test_twins_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    """Each text five times, in other case and white space, with labels drawn by the text: were a twin of a held-out row
    learnt from, the score would give the label away."""
    texts = judged()["text"].to_pylist()[:300]
    draws = np.random.default_rng(1).integers(0, 2, len(texts)) * 4 + 1
    forms = [lambda t: t, str.upper, lambda t: t.replace(" ", "  "), lambda t: f" {t}\n", str.lower]
    rows = [{"text": form(t), "judge_score": int(s)} for t, s in zip(texts, draws) for form in forms]
    card = fit_of(JUDGED.conform(pa.Table.from_pylist(rows)), str(tmp_path), bits=16).run()
    held = card.facts["held_out"]
    assert held["rows"] % 5 == 0 and abs(held["auc"] - 0.5) < 0.2


def test_a_threshold_for_a_precision(tmp_path: Path) -> None:
    table = judged()
    scores = table["judge_score"].to_numpy().copy()
    swapped = np.random.default_rng(0).random(len(scores)) < 0.15  # the judge errs
    scores[swapped] = 6 - scores[swapped]
    noisy = table.set_column(1, "judge_score", pa.array(scores))
    plain = fit_of(noisy, str(tmp_path / "plain"), bits=14).run()
    sure = fit_of(noisy, str(tmp_path / "sure"), bits=14, min_precision=0.8).run()
    assert sure.facts["threshold"] > plain.facts["threshold"] == 0.5
    assert sure.facts["held_out"]["precision"] > max(0.75, plain.facts["held_out"]["precision"])
    assert sure.facts["held_out"]["recall"] > 0.3
    with pytest.raises(UserError, match="no threshold has a precision of 0.999: the best is 0"):
        fit_of(noisy, str(tmp_path / "none"), bits=14, min_precision=0.999).run()
    fixed = fit_of(noisy, str(tmp_path / "fixed"), bits=14, min_score=0.7).run()
    assert fixed.facts["threshold"] == 0.7
    assert fixed.facts["held_out"]["kept"] < plain.facts["held_out"]["kept"]


def test_rows_without_text_or_label_are_left_out_and_many_are_drawn_from(tmp_path: Path) -> None:
    table = judged()
    dark = pa.table({"text": ["a text", None, "another"], "judge_score": pa.array([None, 5, None], pa.int64())})
    schema = TableSchema((Column("text", "text", nullable=True), JUDGED.column("judge_score")))
    whole = schema.conform(pa.concat_tables([table, dark]))
    family = Quality(QualitySpec(threshold=4, bits=14, max_rows=500), schema)
    check_fit(family, whole, None)
    family.begin(whole, 0, None)
    assert family.facts["left_out"] == 3
    assert family.facts["held_out"]["rows"] + family.facts["learnt_from"]["rows"] == 500


def test_labels_may_be_words(tmp_path: Path) -> None:
    words = ["good" if score >= 4 else "bad" for score in judged()["judge_score"].to_pylist()]
    schema = TableSchema((Column("text", "text"), Column("verdict", "category", categories=("bad", "good"))))
    table = schema.conform(pa.table({"text": judged()["text"], "verdict": words}))
    family = Quality(QualitySpec(label="verdict", positive="good", bits=14), schema)
    check_fit(family, table, None)
    family.begin(table, 0, None)
    assert family.facts["held_out"]["auc"] > 0.9


VERDICT = Column("verdict", "category", categories=("bad", "good"))


@pytest.mark.parametrize(
    ("keys", "columns", "words"),
    [
        ({}, JUDGED.columns, "give either threshold"),
        ({"threshold": 4, "positive": "good"}, JUDGED.columns, "give either threshold"),
        ({"threshold": 4, "min_score": 0.5, "min_precision": 0.5}, JUDGED.columns, "either min_score or min_precision"),
        ({"threshold": 4, "bits": 30}, JUDGED.columns, "bits must lie in 10..24"),
        ({"threshold": 4}, (*JUDGED.columns, VERDICT), "learns from two columns"),
        ({"threshold": 4, "text": "body"}, JUDGED.columns, "learns from two columns, 'body' and 'judge_score'"),
        ({"threshold": 4, "label": "verdict"}, (JUDGED.columns[0], VERDICT), "give model.positive"),
        ({"positive": "fine", "label": "verdict"}, (JUDGED.columns[0], VERDICT), "none of the categories"),
        ({"positive": "4"}, JUDGED.columns, "none of the categories"),
        ({"threshold": 4}, (VERDICT, JUDGED.columns[1]), "learns from two columns"),
        ({"threshold": 4, "text": "verdict"}, (VERDICT, JUDGED.columns[1]), 'must be of kind "text"'),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(keys: dict[str, Any], columns: tuple[Column, ...], words: str) -> None:
    with pytest.raises(UserError) as refused:
        Quality(build(QualitySpec, keys, "model"), TableSchema(columns)).check()
    assert words in str(refused.value)


def test_too_few_rows_of_a_class_are_refused_before_the_fit() -> None:
    family = Quality(QualitySpec(threshold=6), JUDGED)
    with pytest.raises(UserError, match=r"needs 50 rows of either class, but 0 of 2,000 are good \(judge_score >= 6\)"):
        check_fit(family, judged(), None)


ROWS = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.integers(0, 1)), min_size=MIN_ROWS_OF_THRESHOLD, max_size=200
)


@given(ROWS, st.floats(0.05, 0.95))
def test_the_threshold_is_the_lowest_that_holds(rows: list[tuple[float, int]], min_precision: float) -> None:
    scores, labels = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])

    def holds(least: float) -> bool:
        kept = scores >= least
        return kept.sum() >= MIN_ROWS_OF_THRESHOLD and labels[kept].mean() >= min_precision

    good = [least for least in np.unique(scores) if holds(least)]
    if good:
        assert lowest(scores, labels, min_precision) == good[0]
    else:
        with pytest.raises(UserError, match="no threshold has a precision"):
            lowest(scores, labels, min_precision)


def test_the_report_by_hand() -> None:
    found = report(np.array([0.9, 0.8, 0.4, 0.2]), np.array([1, 0, 1, 0]), 0.5)
    assert found == {"rows": 4, "kept": 2, "base_rate": 0.5, "precision": 0.5, "recall": 0.5, "auc": 0.75}
    assert report(np.array([0.1, 0.2]), np.array([0, 1]), 0.5)["precision"] is None
