"""`gristmill compare`: students of corpora and of real text, judged on held-out real text; resumable by student."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gristmill as package
from gristmill.evaluation.intervals import t_interval
from gristmill.evaluation.probes import Item, accuracy, agreement_items, cloze_items, unseen
from gristmill.generators.lm.student import unit_name
from gristmill.jobs.compare.command import open_comparison, run
from gristmill.jobs.compare.inputs import CompareArgs, read_comparison
from gristmill.jobs.compare.results import summary, verdict
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.docstrings import docstrings

TINY = [f"--set=model.{setting}" for setting in ("hidden=32", "heads=1", "layers=2", "length=16", "vocabulary=512")]
TINY += ["--set=model.epochs=2.0", "--set=model.lr=5e-3", "--tokens=12000"]


def put(folder: Path, name: str, texts: list[str]) -> str:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    return str(path)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Docstrings as the real text and its holdout, others as a good corpus, and others with their words in disorder."""
    folder = tmp_path_factory.mktemp("corpora")
    texts, disorder = list(docstrings()), random.Random(0)
    mixed_up = [" ".join(disorder.sample(words, len(words))) for words in map(str.split, texts[2:1200:4])]
    parts = {"real": texts[0:1200:4], "holdout": texts[1:1200:4], "good": texts[3:1200:4], "mixed-up": mixed_up}
    return {name: put(folder, name, part) for name, part in parts.items()}


def compared(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "compare.json").read_text())


def test_a_corpus_in_disorder_teaches_less_and_a_second_call_trains_only_what_is_missing(
    corpora: dict[str, str], tmp_path: Path, ray_session: None
) -> None:
    sides = ["--real", corpora["real"], "--holdout", corpora["holdout"], "--out", str(tmp_path / "out"), *TINY]
    flags = ["compare", f"disorder={corpora['mixed-up']}", corpora["good"], *sides]
    dry = gristmill(*flags, "--seeds=1", "--dry-run")
    assert dry.returncode == 0 and "3 (3 corpora x 1 seeds), 0 done" in " ".join(dry.stdout.split()), dry.stderr
    first = gristmill(*flags, "--seeds=1")
    assert first.returncode == 0, first.stderr
    one = compared(tmp_path / "out")
    assert one["state"] == "complete" and "by a single seed" in one["verdict"] and len(one["students"]) == 3
    again = gristmill(*flags, "--seeds=2")
    assert again.returncode == 0, again.stderr
    two = compared(tmp_path / "out")
    assert two["students"][:3] == one["students"] and len(two["students"]) == 6, "finished students are kept"
    bits = {row["corpus"]: row["bits_per_byte"]["mean"] for row in two["summary"]}
    assert bits["disorder"] > bits["good.parquet"] + 0.05 and abs(bits["good.parquet"] - bits["real"]) < 0.3
    assert len({s["num_tokens"] for s in two["students"]}) == 1 and len({s["num_steps"] for s in two["students"]}) == 1
    assert all(0 <= value <= 1 for s in two["students"] for value in s["probes"].values())
    assert {"cloze_holdout", "agreement"} <= two["students"][0]["probes"].keys()
    assert "bits per byte" in again.stdout and "± " in again.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page and "disorder" in page and not (tmp_path / "out" / "work").exists()
    other = gristmill(*flags, "--seeds=2", "--set=model.lr=1e-3")
    assert other.returncode == 2 and "holds another comparison" in other.stderr
    assert "lr" in other.stderr and compared(tmp_path / "out") == two


@pytest.mark.parametrize(
    "flags, message",
    [
        (["A=good", "A=mixed-up"], "'A' names two corpora"),
        (["real=good"], "is the name of the real text"),
        (["good", "--tokens=0"], "must be at least 1"),
        (["good", "--text-column=body"], "has no column 'body'"),
        (["good", "--tokens=100"], "a student needs at least"),
        (["good", "--student=package:fit/adult-tvae"], "is of kind 'tvae'; a student is of kind 'causal_lm'"),
        (["good", "--holdout=real"], "holds the same texts as --real"),
        (["good", "--set=model.depth=3"], "unknown key 'depth'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    flags: list[str], message: str, corpora: dict[str, str], tmp_path: Path
) -> None:
    named = [f"{sign}{corpora[name]}" if name in corpora else f"{sign}{name}" for sign, name in map(_parted, flags)]
    sides = ["--real", corpora["real"], "--out", str(tmp_path / "out")]
    done = gristmill("compare", *named, *sides)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def _parted(flag: str) -> tuple[str, str]:
    sign, sep, name = flag.rpartition("=")
    return sign + sep, name


def test_a_run_that_is_not_complete_and_copies_of_the_holdout_are_notes(
    corpora: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "run" / "kept").mkdir(parents=True)
    shutil.copy(corpora["holdout"], tmp_path / "run" / "kept" / "part-00000000.parquet")
    Manifest("0" * 64, {"name": "a run"}, {}, "budget").save(open_store(str(tmp_path / "run")))
    settings = [flag.removeprefix("--set=") for flag in TINY if flag.startswith("--set")]
    args = CompareArgs(
        [str(tmp_path / "run")], corpora["real"], "", corpora["holdout"], num_tokens=10**9, settings=settings
    )
    comparison = read_comparison(args)
    assert comparison.task.num_tokens % 16 == 0 and len(comparison.corpora) == 2
    notes = "; ".join(comparison.notes)
    assert "the run of 'run' is budget: its rows so far count" in notes and "held-out blocks word for word" in notes
    assert "probe cloze_holdout is left out: 0 of" in notes and "' has no more" in notes
    keys = [unit.key for unit in comparison.units(2)]
    assert len(set(keys)) == 4 and [unit.seed for unit in comparison.units(2)] == [0, 0, 1, 1]


def test_as_a_function(corpora: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column 'body'"):
        package.compare([corpora["good"]], corpora["real"], tmp_path / "out", text_column="body")


def test_cloze_items_replace_one_word_by_another_of_the_text() -> None:
    items = cloze_items(list(docstrings()[:400]), 50)
    assert items == cloze_items(list(docstrings()[:400]), 50) and len(items) == 50
    for item in items:
        words = [option.split() for option in item.options]
        assert len(set(item.options)) == 4 and len({len(sentence) for sentence in words}) == 1
        assert all(sum(a != b for a, b in zip(words[0], other)) == 1 for other in words[1:])
    assert unseen(items, [items[0].options[0].replace(" ", "\n")]) == items[1:]
    assert cloze_items(["月亮吸引海水。"], 9) == []


def test_agreement_items_differ_in_the_verb_alone() -> None:
    items = agreement_items(200)
    assert len(set(items)) == 200 == len(items)
    for right, wrong in (item.options for item in items):
        assert right.rsplit(" ", 2)[0].split()[:2] == wrong.rsplit(" ", 2)[0].split()[:2] and right != wrong
    assert any("children" in item.options[0] for item in items)


def test_accuracy_counts_only_what_is_surely_right() -> None:
    items = [Item(("a", "b")), Item(("a", "b", "c")), Item(("a", "b"))]
    assert accuracy([-1.0, -2.0, -3.0, -1.0, -4.0, -2.0, -2.0], items) == 1 / 3


def test_intervals_and_the_verdict() -> None:
    assert t_interval([1.0]) == (1.0, None)
    mean, half = t_interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(2.4841, abs=1e-4)  # t(0.975, 2) / sqrt(3)

    def of(corpus: str, bits: list[float]) -> list[Any]:
        probes = {"agreement": 0.5}
        return [
            {"corpus": corpus, "seed": seed, "bits_per_byte": value, "perplexity": 9.0, "probes": probes}
            for seed, value in enumerate(bits)
        ]

    corpora = [type("C", (), {"name": name, "path": name, "num_texts": 1})() for name in ("a", "b", "real")]
    students = [*of("a", [2.0, 2.1, 2.2]), *of("b", [2.3, 2.41, 2.5]), *of("real", [1.9, 2.0, 2.1])]
    rows = summary(corpora, students)
    assert [row["corpus"] for row in rows] == ["real", "a", "b"] and rows[1]["to_real"]["mean"] == pytest.approx(0.1)
    assert verdict(rows, students).startswith("'a' helps most: 'b' needs +0.30")
    close = [*of("a", [2.0, 2.4, 2.2]), *of("b", [2.3, 2.1, 2.25]), *of("real", [1.9, 2.0, 2.1])]
    assert "are not told apart" in verdict(summary(corpora, close), close)


def test_corpora_with_equal_texts_and_renamed_ones_keep_their_rows(corpora: dict[str, str], tmp_path: Path) -> None:
    settings = [flag.removeprefix("--set=") for flag in TINY if flag.startswith("--set")]

    def rows(*names: str) -> dict[str, float]:
        """Compare with students that are there already, so that none is trained."""
        addresses = [f"{name}={corpora['good']}" for name in names]
        out, holdout = str(tmp_path / "out"), corpora["holdout"]
        args = CompareArgs(addresses, corpora["real"], out, holdout, num_tokens=12000, num_seeds=2, settings=settings)
        comparison, output = open_comparison(args)
        for unit in comparison.units(2):
            measures = {"corpus": unit.corpus, "seed": unit.seed, "num_tokens": 1, "num_steps": 1, "probes": {}}
            measures |= {"bits_per_byte": 2.0 + unit.seed, "perplexity": 9.0, "seconds": 1.0}
            if not output.store.exists(unit_name(unit.key)):
                output.store.put(unit_name(unit.key), json.dumps(measures).encode())
        compare_file = run(args, comparison, output)
        assert compare_file["state"] == "complete" and all(row["num_seeds"] == 2 for row in compare_file["summary"])
        return {row["corpus"]: row["bits_per_byte"]["mean"] for row in compare_file["summary"]}

    assert rows("a") == {"a": 2.5, "real": 2.5}
    assert rows("b", "c") == {"b": 2.5, "c": 2.5, "real": 2.5}, "renamed, and twice the same texts"
    assert len(list((tmp_path / "out" / "units").iterdir())) == 4, "equal texts share a student"
