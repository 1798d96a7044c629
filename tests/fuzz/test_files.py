"""Every verb answers every damaged file with an exit code of its list and one line, never with a traceback.

Each test takes a small real output and real input files, changes one file, calls a verb in this process and puts the
file back. Reading needs no Ray.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.generators.families.folder import read_card
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.readers.datasets import images_table
from tests.fuzz.calls import check
from tests.fuzz.mutations import Change, changes_of, restore
from tests.profiles import scaled
from tests.records.make_outputs import FIT, RUN, STUDY
from tests.records.test_outputs import FORMATS, OUTPUTS

DATA = "package:breast-cancer"


@dataclass(frozen=True)
class Case:
    """A verb and the files that it reads, all below a folder of the test, which {} stands for."""

    words: str
    files: tuple[str, ...]
    num_examples: int = 200  # at night

    def __str__(self) -> str:
        return self.words.replace("{}/", "")


RUN_FILES = ("run/manifest.json", "run/lease.json", "run/events/start-0001-000000.jsonl")
MODEL_FILES = ("model/model.json", "model/weights.safetensors", "model/audit.json")
STUDY_FILES = ("study/study.json", "study/summary.parquet", "study/results.parquet", "study/units/*.parquet")
EVALUATED = ("rows.parquet", "holdout.jsonl", "rows.csv", "columns.toml")
FILES = "--real-train {}/rows.csv --real-holdout {}/holdout.jsonl --max-rows 60"
SIDES = f"--real-train {DATA}#train --real-holdout {DATA}#holdout --max-rows 60"
# Files of a run that hold rows.
SHARDS = ("run/kept/part-00000000.parquet", "run/kept/part-00000001.parquet", "run/rejected/part-00000000*.parquet")

CASES = [
    Case("status {}/run", RUN_FILES),
    Case("status {}/run --json", RUN_FILES),
    Case("status {}/run --watch", RUN_FILES, 60),
    Case("audit {}/run", RUN_FILES[:1]),
    Case("report {}/run", RUN_FILES, 20),
    Case("pack {}/run --to {}/release --dry-run", RUN_FILES[:1]),
    Case("produce {}/run.toml --out {}/again --dry-run", ("again/manifest.json", "run.toml")),
    Case("fit {}/fit.toml --out {}/model --dry-run", (*MODEL_FILES[:2], "fit.toml")),
    Case("evaluate {data} {sides} --model {}/model --out {}/evaluation --json", (MODEL_FILES[0], MODEL_FILES[2])),
    Case("evaluate {}/rows.parquet {files} --schema {}/columns.toml --out {}/evaluation --json", EVALUATED),
    Case("produce {}/sample.toml --out {}/sample --dry-run", MODEL_FILES),
    Case("audit {}/study", STUDY_FILES),
    Case("study {}/study.toml --out {}/study", STUDY_FILES[:2]),
    Case("study {}/study.toml --out {}/study --dry-run", ("study.toml", *STUDY_FILES)),
    Case("produce {}/lines.toml --out {}/new --dry-run", ("lines.toml", "rows.jsonl", "bench.jsonl", "schema.json")),
    Case("produce {}/tables.toml --out {}/new --dry-run", ("rows.parquet", "principles.toml")),
    Case("fit {}/lines-fit.toml --out {}/new --dry-run", ("rows.jsonl", "columns.toml")),
    Case("fit {}/csv-fit.toml --out {}/new --dry-run", ("rows.csv",)),
    Case("fit {}/parquet-fit.toml --out {}/new --dry-run", ("rows.parquet",)),
    Case("fit {}/images-fit.toml --out {}/new --dry-run", ("images.parquet",)),
]
SHARD_CASES = [
    Case("status {}/run", SHARDS),
    Case("audit {}/run", SHARDS),
    Case("report {}/run", SHARDS, 20),
    Case("pack {}/run --to {}/release --dry-run", SHARDS),
    Case("produce {}/run.toml --out {}/again --dry-run", tuple(name.replace("run/", "again/", 1) for name in SHARDS)),
]


LINES = """
name = "lines"
[source]
path = "{}/rows.jsonl"
id_column = "label"
[generator]
kind = "passthrough"
[[stages]]
kind = "decontaminate"
benchmarks = [{ name = "bench", path = "{}/bench.jsonl" }]
[[stages]]
kind = "json_schema"
file = "{}/schema.json"
"""
TABLES = """
name = "tables"
[source]
path = "{}/rows.parquet"
[generator]
kind = "teacher"
model = "package:smollm2"
[method]
kind = "constitutional"
file = "{}/principles.toml"
[[stages]]
kind = "decontaminate"
benchmarks = [{ name = "bench", path = "{}/rows.parquet" }]
min_words = 3
"""
SAMPLE = """
name = "sample"
[generator]
kind = "model"
model = "{}/model"
[limits]
asks = 8
[source]
items = [{}]
cycle = true
"""
COLUMNS = """columns = [
    { name = "size", kind = "numeric", low = 0.0, high = 50.0 },
    { name = "label", kind = "category", categories = ["a", "b"] },
]
"""
PRINCIPLES = """
[[principles]]
id = "kind"
critique = "Is it kind?"
revision = "Make it kind."
judge = "Which is kinder?"
"""
AUDIT = {"verdict": "not refuted", "is_refuted": False, "epsilon_lower_bound": 0.1, "confidence": 0.95, "delta": 1e-6}


def fit_recipe(file: str, schema: str) -> str:
    return f'name = "fit"\n[data]\npath = "{file}"\n[model]\nkind = "independent"\n{schema}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored outputs and a file of each kind that recipes name."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(OUTPUTS / FORMATS[-1], folder, dirs_exist_ok=True)
    lease = {"token": "0", "host": "elsewhere", "pid": 1, "beat": 3, "process_start": "1"}
    (folder / "run" / "lease.json").write_text(json.dumps(lease))
    card = read_card(str(folder / "model"))
    audit = {"format": 1, **AUDIT, "claimed_epsilon": None, "num_canaries": 100, "model": card.digest}
    (folder / "model" / "audit.json").write_text(json.dumps(audit))
    rows = [{"text": f"row {n} of some words", "size": n / 2, "label": "ab"[n % 2]} for n in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    others = [{"size": n / 3.1, "label": "ba"[n % 2]} for n in range(1, 99)]
    (folder / "holdout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    (folder / "rows.csv").write_text("size,label\n" + "".join(f"{row['size']},{row['label']}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    pq.write_table(images_table(np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2), folder / "images.parquet")
    (folder / "bench.jsonl").write_text(json.dumps({"id": "one", "text": "a question of thirteen words " * 3}) + "\n")
    (folder / "schema.json").write_text(json.dumps({"type": "object", "required": ["a"]}))
    (folder / "principles.toml").write_text(PRINCIPLES)
    (folder / "columns.toml").write_text(COLUMNS)
    image = '{ name = "image", kind = "image", height = 8, width = 8, channels = 1 }'
    label = '{ name = "label", kind = "category", categories = ["0", "1"] }'
    images = f"schema = {{ columns = [{image}, {label}] }}\n"
    recipes = {
        "run": RUN, "fit": FIT, "study": STUDY, "lines": LINES, "tables": TABLES, "sample": SAMPLE,
        "lines-fit": fit_recipe("{}/rows.jsonl", '[schema]\nfile = "{}/columns.toml"\n'),
        "csv-fit": fit_recipe("{}/rows.csv", ""), "parquet-fit": fit_recipe("{}/rows.parquet", ""),
        "images-fit": images + fit_recipe("{}/images.parquet", "").replace("independent", "vae"),
    }  # fmt: skip
    for name, text in recipes.items():
        (folder / f"{name}.toml").write_text(text.replace("{}/", f"{folder}/"))
    shutil.copytree(folder / "run", folder / "again")
    resumable(folder / "again" / "manifest.json", folder / "run.toml")
    return folder


def resumable(manifest: Path, recipe: Path) -> None:
    """Let a stored run pass for a run of this version, whose stages may have other revisions."""
    compiled = compile_recipe(load(str(recipe)))
    facts = json.loads(manifest.read_text()) | {"fingerprint": compiled.fingerprint, "identity": compiled.identity}
    manifest.write_text(json.dumps(facts))


def words_of(case: Case, folder: Path) -> list[str]:
    words = (
        case.words.replace("{data}", DATA)
        .replace("{sides}", SIDES)
        .replace("{files}", FILES)
        .replace("{}/", f"{folder}/")
    )
    return words.split()


@pytest.fixture(autouse=True)
def no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate` reads and checks its files, and computes nothing."""
    monkeypatch.setattr("gristmill.jobs.evaluate.command.write_evaluation", lambda *inputs: {})


def fuzz(case: Case, folder: Path) -> None:
    """Change one of the case's files at a time, call the verb, and put the file back."""
    files = [file for pattern in case.files for file in sorted(folder.glob(pattern))]
    assert len(files) >= len(case.files), case
    contents = {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    changes = st.one_of([changes_of(file).map(lambda change, file=file: (file, change)) for file in files])
    assert check(*words_of(case, folder)) != 2, case  # undamaged, it works

    @settings(max_examples=scaled(case.num_examples), suppress_health_check=list(HealthCheck))
    @given(changes)
    def run(changed: tuple[Path, Change]) -> None:
        file, change = changed
        change(file)
        try:
            check(*words_of(case, folder))
        finally:
            for path, data in contents.items():
                if path == file or not path.is_file() or path.read_bytes() != data:
                    restore(path, data)

    run()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_damaged_file_is_one_line(case: Case, folder: Path) -> None:
    fuzz(case, folder)


@pytest.mark.parametrize("case", SHARD_CASES, ids=str)
def test_a_damaged_shard_is_one_line(case: Case, folder: Path) -> None:
    fuzz(case, folder)
