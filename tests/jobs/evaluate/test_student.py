"""`gristmill evaluate --student`: students of synthetic and of real texts, judged on real ones, beside a teacher."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import gristmill
from tests.docstrings import docstrings

RECIPE = """
name = "student"
[data]
path = "nowhere"
[model]
kind = "causal_lm"
length = 16
epochs = 2.0
hidden = 32
layers = 2
heads = 1
vocabulary = 512
"""


def put(folder: Path, name: str, texts: list[str]) -> str:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """Two thirds of the real docstrings as `train` and `holdout`, and the recipe of a student."""
    folder = tmp_path_factory.mktemp("students")
    put(folder, "train", list(docstrings()[:900:3]))
    put(folder, "holdout", list(docstrings()[1:900:3]))
    (folder / "student.toml").write_text(RECIPE)
    return folder


def judge(folder: Path, name: str, texts: list[str], *more: str) -> tuple[dict[str, Any], str]:
    """The metrics of students of these texts and of the real ones, and what the command printed."""
    sides = ["--real-train", str(folder / "train.parquet"), "--real-holdout", str(folder / "holdout.parquet")]
    flags = ["--student", str(folder / "student.toml"), "--out", str(folder / name), "--text-column", "text"]
    ran = gristmill("evaluate", put(folder, f"{name}-rows", texts), *sides, *flags, *more)
    assert ran.returncode == 0, ran.stderr
    return json.loads((folder / name / "metrics.json").read_text()), ran.stdout


@pytest.fixture(scope="module")
def mixed_up(folder: Path) -> tuple[dict[str, Any], str]:
    """Docstrings with their words in disorder as the synthetic rows."""
    disorder = random.Random(0)
    words = [text.split() for text in docstrings()[2:900:3]]
    return judge(folder, "mixed-up", [" ".join(disorder.sample(w, len(w))) for w in words])


def test_students_of_disorder_know_less_of_real_texts(mixed_up: tuple[dict[str, Any], str]) -> None:
    metrics, output = mixed_up
    student = metrics["text"]["student"]
    assert student["ratio"] < 0.97
    assert metrics["headline"]["student_ratio"] == student["ratio"]
    assert student["bits_per_byte"]["train"] < student["bits_per_byte"]["synthetic"]
    assert student["bits_per_byte_of_synthetic"]["synthetic"] < student["bits_per_byte_of_synthetic"]["train"]
    assert student["teacher"] is None and student["base_bits_per_byte"] is None
    assert "TSTR / TRTR of students" in output


def test_students_leave_nothing_behind(mixed_up: tuple[dict[str, Any], str], folder: Path) -> None:
    assert sorted(path.name for path in (folder / "mixed-up").iterdir()) == ["metrics.json", "report.html"]


@pytest.mark.nightly
def test_a_student_of_real_texts_goes_beyond_a_weak_teacher(folder: Path) -> None:
    """The synthetic rows are other real texts. The teacher is one that has learnt a tenth as long."""
    schema = '[schema]\ncolumns = [{ name = "text", kind = "text" }]\n'
    recipe = RECIPE.replace('path = "nowhere"', f'path = "{folder / "train.parquet"}"') + schema
    (folder / "fit.toml").write_text(recipe)
    done = gristmill("fit", str(folder / "fit.toml"), "--out", str(folder / "weak"), "--set", "model.epochs=0.2")
    assert done.returncode == 0, done.stderr
    metrics, _ = judge(folder, "real", list(docstrings()[2:900:3]), "--teacher", str(folder / "weak" / "hf"))
    student = metrics["text"]["student"]
    assert 0.97 < student["ratio"] < 1.03
    teacher = student["teacher"]
    assert teacher["bits_per_byte"] > student["bits_per_byte"]["synthetic"]
    assert 0.8 < teacher["gap_recovered"] < 1.2
    assert teacher["agreement"] is None or 0 <= teacher["agreement"] <= 1
    assert "gap to real texts recovered" in (folder / "real" / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--student", "recipes/fit/digits-gan.toml"], "a student is of kind 'causal_lm'"),
        (["--teacher", "package:smollm2"], "name its recipe by --student"),
        (["--student", "recipes/fit/docstrings-llama.toml", "--teacher", "/no/such"], "no such folder"),
    ],
)
def test_bad_flags_are_refused(more: list[str], message: str, tmp_path: Path) -> None:
    texts = list(docstrings()[:120])
    sides = [put(tmp_path, n, texts[i::3]) for i, n in enumerate(("synthetic", "train", "holdout"))]
    flags = ["--real-train", sides[1], "--real-holdout", sides[2], "--out", str(tmp_path / "out")]
    ran = gristmill("evaluate", sides[0], *flags, *more)
    assert ran.returncode == 2 and message in ran.stderr
