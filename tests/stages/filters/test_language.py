"""Our kernel against py3langid's own classify(), text by text."""

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.filters import language_model
from gristmill.stages.filters.language import Language, LanguageSpec
from gristmill.stages.filters.language_model import Model, labels, load, load_identifier
from tests.profiles import scaled

SAMPLES = {
    "en": "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised by it at all.",
    "de": "Der schnelle braune Fuchs springt über den faulen Hund, und niemand im Dorf wunderte sich darüber.",
    "fr": "Le renard brun saute par-dessus le chien paresseux, et personne au village n'en fut surpris hier.",
    "ru": "Быстрая лиса прыгает через ленивую собаку, и никто в деревне этому совсем не удивился вчера.",
    "ja": "素早い茶色の狐がのろまな犬を飛び越えたが、村では誰もそれに驚かなかったということです。",
}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def peer() -> Any:
    return load_identifier()


def stage(**table: Any) -> Language:
    made = Language(build(LanguageSpec, table, "stages[0]"))
    made.check()
    made.open()
    return made


def agree(model: Model, peer: Any, texts: list[str], max_bytes: int = 2048) -> None:
    """Same probability, and the same label unless two are alike to rounding."""
    classes, scores = model.classify(pa.array(texts, pa.string()), max_bytes)
    for text, found, score in zip(texts, classes, scores):
        prefix = text.encode()[:max_bytes].decode(errors="ignore")
        ranking = peer.rank(prefix)
        expected = peer.classify(prefix)
        assert score == pytest.approx(expected[1], abs=1e-5)
        if ranking[0][1] - ranking[1][1] > 1e-5:
            assert model.labels[int(found)].as_py() == expected[0]


TEXT = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(codec="ascii"), max_size=400),
    st.lists(st.sampled_from(" ".join(SAMPLES.values()).split()), max_size=80).map(" ".join),
    st.sampled_from(sorted(SAMPLES.values())).map(str.upper),
    st.sampled_from(["e\u0301le\u0300ve", "ÀÉ", "ẞ", "ſ", "\x00", "İSTANBUL"]).map(lambda s: s * 9),
)


@settings(max_examples=scaled(150), deadline=None)
@given(st.lists(TEXT, max_size=9), st.sampled_from([64, 100, 2048]))
def test_agrees_with_py3langid_on_any_text(model: Model, peer: Any, texts: list[str], max_bytes: int) -> None:
    agree(model, peer, texts, max_bytes)


def test_agrees_with_py3langid_on_real_text(model: Model, peer: Any) -> None:
    texts = [topics[name][:6000] for name in sorted(topics)]
    agree(model, peer, texts)
    agree(model, peer, texts, 100_000)


def test_other_languages_and_doubtful_texts_are_refused() -> None:
    texts = [*SAMPLES.values(), "0 1 2 3 4", "", None]
    columns = {"text": pa.array(texts, pa.string()), "reject": pa.nulls(len(texts), pa.string())}
    rows = stage(keep=["en", "de"]).run(pa.RecordBatch.from_pydict(columns)).to_pylist()
    assert [row["language"] for row in rows[:5]] == list(SAMPLES)
    assert [row["reject"] for row in rows[:5]] == [None, None] + ["language:other"] * 3
    assert all(row["language_score"] > 0.9 for row in rows[:5])
    assert all(row["reject"] and row["language_score"] < 0.65 for row in rows[5:])
    sure = stage(keep=["en"], min_score=1.0).run(pa.RecordBatch.from_pydict(columns)).to_pylist()
    assert sure[0]["reject"] == "language:unsure"


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no language 'eng' \(known: .*en, eo"):
        stage(keep=["eng"])


@pytest.mark.parametrize("table", [{"keep": []}, {"min_score": 1.5}, {"max_bytes": 10}])
def test_a_senseless_spec_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build(LanguageSpec, table, "stages[0]")


def test_another_release_of_py3langid_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.stages.filters.language.version", lambda package: "0.5.0")
    with pytest.raises(UserError, match=r"py3langid 0\.5\.0 is installed.*pip install py3langid==0\.4\.0"):
        Language(LanguageSpec()).open()


def test_the_model_is_kept_and_a_damaged_file_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    made = load()
    (path,) = tmp_path.glob("language/*")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1000], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        path.write_bytes(damaged)
        (tmp_path / "language" / "another-version.npz").touch()
        again = load()
        assert all((again[name] == made[name]).all() for name in made)
        assert [p.read_bytes() == whole for p in tmp_path.glob("language/*")] == [True]
    monkeypatch.setattr(language_model, "convert", None)
    assert load(only="labels")["labels"].tolist() == made["labels"].tolist()


def test_without_a_place_for_it_the_model_is_made_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "file"))
    assert len(labels()) == 142
