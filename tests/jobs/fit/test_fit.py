"""`gristmill fit`, as a user runs it: a model, the same model after kills, refusals, and rows from it in lots."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from gristmill.records.readers.datasets import DataSpec, read_table
from tests.conftest import ROOT, gristmill
from tests.outputs import PATIENCE_S, kept_hashes
from tests.recipes import write
from tests.session import new_folder

MODEL = {"kind": "tvae", "epochs": 40, "batch_size": 50, "latent": 8, "hidden": [16]}


@cache
def patients() -> str:
    """A CSV of five columns of breast-cancer: the modes of all 31 take ten times as long as the fit."""
    from pyarrow import csv

    path = new_folder("patients") / "patients.csv"
    rows = read_table(DataSpec("package:breast-cancer"))
    csv.write_csv(rows.select(["mean_radius", "mean_texture", "mean_area", "mean_concavity", "diagnosis"]), path)
    return str(path)


def fit_recipe(folder: Path, **changes: Any) -> str:
    recipe = {
        "name": "fit-test",
        "data": {"path": patients()},
        "model": MODEL,
        "cluster": {"num_cpus": 2},
        **changes,
    }
    return write(folder / "fit.toml", {k: v for k, v in recipe.items() if v is not None})


def start(recipe: str, out: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gristmill", "fit", recipe, "--out", out, *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def weights(out: Path) -> bytes:
    return (out / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    done = gristmill("fit", fit_recipe(folder), "--out", str(folder / "model"))
    assert done.returncode == 0, done.stderr
    assert "schema: bounds and categories were read from the rows" in done.stderr
    assert "569 rows of" in done.stdout and "none: the model was fitted" in done.stdout
    return folder / "model"


def test_the_folder_holds_the_model_and_nothing_else(fitted: Path) -> None:
    assert sorted(p.name for p in fitted.iterdir()) == ["model.json", "weights.safetensors"]
    card = json.loads((fitted / "model.json").read_text())
    assert card["identity"]["kind"] == "tvae" and card["identity"]["schema"]["inferred"] is True
    assert card["privacy"]["guarantee"] is None
    assert card["losses"][0]["step"] < card["losses"][-1]["step"]


def test_stopped_killed_and_gone_on_it_is_the_same_model(fitted: Path, tmp_path: Path) -> None:
    recipe, out = fit_recipe(tmp_path), tmp_path / "model"
    often = ("--set", "train.checkpoint_s=0.2")
    for number in (signal.SIGINT, signal.SIGKILL):
        run = start(recipe, str(out), *often)
        end = time.monotonic() + 120
        before = set(out.glob("checkpoints/*"))
        while not set(out.glob("checkpoints/*")) - before and run.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        run.send_signal(number)
        output, _ = run.communicate(timeout=PATIENCE_S)
        if number == signal.SIGINT and run.returncode != 0:
            assert run.returncode == 130, output
            assert f"resume with: gristmill fit {recipe} --out {out}" in output
    is_over = threading.Event()
    killer = threading.Thread(target=_kill_trainer, args=(is_over,), daemon=True)
    killer.start()  # the actor dies, the driver starts another
    done = gristmill("fit", recipe, "--out", str(out), *often)
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(fitted)
    is_over.set()
    killer.join()


def _kill_trainer(is_over: threading.Event) -> None:
    """SIGKILL of the first trainer that starts to work on the Ray of this process. There is none if the trainer of the
    killed driver has finished the model meanwhile.
    """
    while not is_over.is_set():
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline()[:1] == ["ray::Trainer.run"]:
                    return process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)


def test_a_finished_model_is_left_alone(fitted: Path, tmp_path: Path) -> None:
    before = weights(fitted)
    again = gristmill("fit", fit_recipe(tmp_path), "--out", str(fitted))
    assert again.returncode == 0 and "is already there" in again.stderr
    other = gristmill("fit", fit_recipe(tmp_path, seed=1), "--out", str(fitted))
    assert other.returncode == 2
    assert "holds another model" in other.stderr and "seed: 0 -> 1" in other.stderr
    assert weights(fitted) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"kind": "tvea"}}, "did you mean 'tvae'"),
        ({"model": {**MODEL, "epoch": 3}}, "did you mean 'epochs'"),
        (
            {"data": {"path": "package:breast-cancr"}},
            "did you mean 'package:breast-cancer'|did you mean 'breast-cancer'",
        ),
        ({"data": {"path": "nowhere.csv"}}, "no such file"),
        ({"schema": {"columns": [{"name": "radius", "kind": "numeric"}]}}, "no column 'radius'"),
        ({"schema": {"columns": [{"name": "mean_radius", "kind": "numeric", "high": 1.0}]}}, "beyond high = 1.0"),
        ({"privacy": {"epsilon": 1.0, "delta": 1e-6}}, "cannot be fitted under a budget"),
        ({"train": {"num_cpus": 64}}, "no node can ever hold the fit, which takes 64 CPU"),
    ],
)
def test_bad_input_is_one_line(changes: dict, words: str, tmp_path: Path) -> None:
    done = gristmill("fit", fit_recipe(tmp_path, **changes), "--out", str(tmp_path / "model"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert any(word in line for word in words.split("|")), line
    assert not (tmp_path / "model" / "model.json").exists()


def test_rows_come_in_lots_and_conditions_are_met(fitted: Path, tmp_path: Path) -> None:
    items: list[dict[str, Any]] = [{}, {"diagnosis": "malignant"}, {"diagnosis": "unknown"}, {"diagnose": "benign"}]
    recipe = {
        "name": "rows",
        "lot_size": 100,
        "source": {"items": items, "cycle": True},
        "generator": {"kind": "model", "model": str(fitted)},
        "limits": {"asks": 400},
        "cluster": {"num_cpus": 2},
    }
    outs = {}
    for name, settings in {"one": [], "wide": ["cluster.replicas=2", "cluster.num_cpus=3"], "none": []}.items():
        if name == "none":
            settings = ["generator.pooled=false"]
        outs[name] = str(tmp_path / name)
        words = [w for s in settings for w in ("--set", s)]
        done = gristmill("produce", write(tmp_path / "rows.toml", recipe), "--out", outs[name], *words)
        assert done.returncode == 0, done.stderr
    assert kept_hashes(outs["one"]) == kept_hashes(outs["wide"]) == kept_hashes(outs["none"])
    assert gristmill("audit", outs["one"]).returncode == 0
    kept = pq.read_table(tmp_path / "one" / "kept")
    rejected = pq.read_table(tmp_path / "one" / "rejected").column("reject").to_pylist()
    assert rejected.count("generator:impossible_value") == rejected.count("generator:unknown_column") == 100
    asked = [row["diagnosis"] for row in kept.to_pylist() if row["source_id"] == "items:1"]
    assert asked and set(asked) == {"malignant"}
    assert set(kept.column("origin").to_pylist()) == {"synthetic"}


def test_a_model_that_is_not_there_or_was_altered(fitted: Path, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"name": "rows", "generator": {"kind": "model", "model": str(tmp_path)}}
    recipe |= {"limits": {"asks": 10}, "cluster": {"num_cpus": 2}}
    done = gristmill("produce", write(tmp_path / "rows.toml", recipe), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "holds no finished model" in done.stderr
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.json", "weights.safetensors"):
        (copy / name).write_bytes((fitted / name).read_bytes())
    data = bytearray(weights(fitted))
    data[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(data)
    recipe["generator"]["model"] = str(copy)
    done = gristmill("produce", write(tmp_path / "rows.toml", recipe), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "it was altered or cut" in done.stderr


def test_a_dry_run_starts_nothing(tmp_path: Path) -> None:
    env = {"RAY_ADDRESS": "127.0.0.1:1"}  # would be refused if it were asked
    done = gristmill("fit", fit_recipe(tmp_path), "--out", str(tmp_path / "model"), "--dry-run", env=env)
    assert done.returncode == 0, done.stderr
    assert "569 of " in done.stdout and "4 numeric" in done.stdout
    assert not os.path.exists(tmp_path / "model")
