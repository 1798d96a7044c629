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
def judged(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> dict[str, Any]:
    """Real docstrings beside docstrings with their words in disorder, and beside real ones of their own kind."""
    folder = tmp_path_factory.mktemp("students")
    whole = list(docstrings()[:900])
    train, holdout, others = whole[::3], whole[1::3], whole[2::3]
    disorder = random.Random(0)
    (folder / "student.toml").write_text(RECIPE)
    sides = {"mixed-up": [" ".join(disorder.sample(t.split(), len(t.split()))) for t in others], "real": others}
    found: dict[str, Any] = {}
    common = ["--real-train", put(folder, "train", train), "--real-holdout", put(folder, "holdout", holdout)]
    for name, texts in sides.items():
        out = folder / name
        more = ["--student", str(folder / "student.toml"), "--out", str(out), "--text-column", "text"]
        if name == "real":  # the student of real texts as the teacher of another
            more += ["--teacher", str(found["model"])]
        ran = gristmill("evaluate", put(folder, f"{name}-rows", texts), *common, *more)
        assert ran.returncode == 0, ran.stderr
        found[name] = json.loads((out / "metrics.json").read_text())
        found[f"{name} out"], found[f"{name} told"] = out, ran.stdout
        if name == "mixed-up":
            fitted = folder / "teacher"
            path = folder / "fit.toml"
            schema = '[schema]\ncolumns = [{ name = "text", kind = "text" }]\n'
            path.write_text(RECIPE.replace('path = "nowhere"', f'path = "{common[1]}"') + schema)
            done = gristmill("fit", str(path), "--out", str(fitted), "--set", "model.epochs=0.2")
            assert done.returncode == 0, done.stderr
            found["model"] = fitted / "hf"
    return found


def test_students_of_disorder_know_less_of_real_texts(judged: dict[str, Any]) -> None:
    worse, same = judged["mixed-up"]["text"]["student"], judged["real"]["text"]["student"]
    assert worse["ratio"] < 0.97 < same["ratio"] < 1.03
    assert judged["mixed-up"]["headline"]["student_ratio"] == worse["ratio"]
    assert worse["bits_per_byte"]["train"] < worse["bits_per_byte"]["synthetic"]
    assert worse["bits_per_byte_of_synthetic"]["synthetic"] < worse["bits_per_byte_of_synthetic"]["train"]
    assert worse["teacher"] is None and worse["base_bits_per_byte"] is None
    assert "TSTR / TRTR of students" in judged["mixed-up told"]


def test_a_student_goes_beyond_a_weak_teacher(judged: dict[str, Any]) -> None:
    """The teacher is one that has learnt a tenth as long."""
    student = judged["real"]["text"]["student"]
    teacher = student["teacher"]
    assert teacher["bits_per_byte"] > student["bits_per_byte"]["synthetic"]
    assert 0.8 < teacher["gap_recovered"] < 1.2
    assert teacher["agreement"] is None or 0 <= teacher["agreement"] <= 1
    page = (judged["real out"] / "report.html").read_text()
    assert "gap to real texts recovered" in page


def test_students_leave_nothing_behind(judged: dict[str, Any]) -> None:
    left = sorted(path.name for path in judged["real out"].iterdir())
    assert left == ["metrics.json", "report.html"]


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
