"""A study of language models: real training, a real vLLM engine that takes over each generation's weights."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gristmill.jobs.study.spec import load_study
from gristmill.records.errors import UserError
from tests.conftest import gristmill

STUDY = """
name = "tiny"
n = 48
generations = 2
[family]
kind = "causal_lm"
data = { path = "package:help-topics", part = "train" }
holdout = { path = "package:help-topics", part = "holdout" }
prompt_tokens = 4
scored = 32
model = { length = 16, epochs = 2.0, hidden = 32, layers = 2, heads = 1, vocabulary = 512, batch = 8 }
[regimes.replace]
[regimes.half-real]
real = "fresh"
real_fraction = 0.5
[work]
num_cpus = 0.5
[engines]
num_cpus = 0.5
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The study and its output."""
    folder = tmp_path_factory.mktemp("tiny")
    path, out = folder / "study.toml", folder / "out"
    path.write_text(STUDY)
    ran = gristmill("study", str(path), "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    return path, out


@pytest.mark.timeout(900)
def test_each_generation_teaches_the_next(study: tuple[Path, Path]) -> None:
    _, out = study
    results = pq.read_table(out / "results.parquet")
    assert results.num_rows == 4 and results.column("num_made").to_pylist() == [48] * 4
    told = {(r["regime"], r["generation"]): r for r in results.to_pylist()}
    assert told["replace", 1]["perplexity"] == told["half-real", 1]["perplexity"] < 600
    assert told["replace", 2]["perplexity"] != told["half-real", 2]["perplexity"]
    assert told["replace", 2]["num_real"] == 0 and told["half-real", 2]["num_real"] == 24
    for name in ("bits_per_byte", "made_perplexity", "entropy_1", "types_kept"):
        assert all(value is not None and value == value for value in results.column(name).to_pylist())
    kept = [folder.name for folder in (out / "models").iterdir()]
    assert len(kept) == 1, "the model of generation 1 stays, by which the others are judged, and no other"
    texts = pq.read_table(next((out / "rows").iterdir())).column("text").to_pylist()
    assert len(set(texts)) > 40
    assert "data:image" in (out / "report.html").read_text() or "<svg" in (out / "report.html").read_text()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_fresh_engines_write_the_same(study: tuple[Path, Path], tmp_path: Path) -> None:
    """The second generation was written by an engine that had other weights before. Made again, it is written by an
    engine that starts with its own.
    """
    path, out = study
    again = tmp_path / "again"
    shutil.copytree(out, again)
    (kept,) = (folder.name for folder in (out / "models").iterdir())
    for folder in ("units", "rows"):
        for file in list((again / folder).iterdir()):
            if kept not in file.name:
                file.unlink()
    for name in ("study.json", "results.parquet", "summary.parquet"):
        (again / name).unlink()
    ran = gristmill("study", str(path), "--out", str(again))
    assert ran.returncode == 0, ran.stderr
    for name in ("results.parquet", "summary.parquet"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    rows = {f.name: f.read_bytes() for f in (out / "rows").iterdir()}
    assert {f.name: f.read_bytes() for f in (again / "rows").iterdir()} == rows


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("n=100000", "blocks of 16 tokens"),
        ("family.prompt_tokens=16", "must be below model.length"),
        ("family.top_p=0.0", "top_p"),
        ("family.model.hiden=3", "hidden"),
        ("family.column='words'", "no column 'words'"),
        ("family.engine={dtipe='auto'}", "did you mean 'dtype'"),
        ("grid={'family.model.length.x'=[1]}", "'length' is a value"),
        ("engines.parallel={dtype=1}", "tensor_parallel_size"),
    ],
)
def test_what_must_fail_fails_before_anything_runs(setting: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    with pytest.raises(UserError, match=message):
        load_study(str(path), [setting])


def test_more_engines_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    ran = gristmill("study", str(path), "--out", str(tmp_path / "out"), "--set", "engines.replicas=500")
    assert ran.returncode == 2 and "Lower engines.replicas" in ran.stderr
