"""Inputs that change under a run or between its starts: the run stops in one line, and goes on when they are back."""

import json
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.cluster.lots.work import LotPipeline
from gristmill.jobs.cli import main
from gristmill.jobs.produce.inputs import SourceWatch
from gristmill.jobs.recipes.compile import CompiledRecipe, compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.readers.sources import SourceSpec, open_source
from tests.conftest import gristmill
from tests.inputs import CHANGES, NO_CHANGES
from tests.outputs import commit_lots, kept_hashes, shard_paths
from tests.recipes import AT_ONCE, canned, write
from tests.session import PATIENCE_S

NUM_ROWS, LOT = 600, 20
ITEM = "seven green boats lay at the long pier while the harbour master counted every rope and lamp twice"


def jsonl(path: Path, word: str = "old") -> str:
    path.write_text("".join(f'{{"topic": "{word} {i:04}"}}\n' for i in range(NUM_ROWS)))
    return str(path)


def parquet(path: Path) -> str:
    """A file of more than 128 KiB, whose ends are not all of it."""
    topics = [f"old {i:04} {os.urandom(200).hex()}" for i in range(NUM_ROWS)]
    pq.write_table(pa.table({"topic": topics}), path, compression="none", use_dictionary=False)
    return str(path)


def recipe(folder: Path, source: str, **changes: Any) -> str:
    return canned(
        folder,
        lot_size=LOT,
        source={"items": None, "cycle": None, "path": source, "carry": ["topic"]},
        generator={"num_words": 30, "seconds_per_ask": 0.01, "contaminated": 0.0, "bad": 0.0},
        method={"kind": "prompt", "template": "Write about {topic}."},
        **{"stages": [{"kind": "finish"}], "limits": {"asks": NUM_ROWS}, "cluster": {"window": 3}, **changes},
    )


def change_after(out: Path, num_lots: int, change: Callable[[], object]) -> threading.Thread:
    """Makes the change when so many lots are committed."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and len(list(out.glob("kept/*.parquet"))) < num_lots:
            time.sleep(0.01)
        change()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def last_line(stderr: str) -> str:
    return stderr.strip().splitlines()[-1]


def test_a_source_replaced_under_a_run(tmp_path: Path) -> None:
    """The first case of all: `os.replace` of the source, which rows of lots to come would be read from."""
    source, other, out = tmp_path / "topics.jsonl", tmp_path / "other.jsonl", tmp_path / "out"
    path = recipe(tmp_path, jsonl(source))
    old = source.read_bytes()
    jsonl(other, "new")
    changing = change_after(out, 5, lambda: os.replace(other, source))
    done = gristmill("produce", path, "--out", str(out))
    changing.join()
    assert done.returncode == 2, done.stderr
    error_line = last_line(done.stderr)
    assert (
        f"source {source} changed since this run began" in error_line and "restore it or use a new --out" in error_line
    )
    assert "Traceback" not in done.stderr
    topics = [t for shard in shard_paths(out) for t in pq.read_table(shard).column("topic").to_pylist()]
    assert len(topics) >= 5 * LOT // 2 and all(topic.startswith("old") for topic in topics)
    assert json.loads((out / "manifest.json").read_text())["state"] == "stopped"

    done = gristmill("produce", path, "--out", str(out), *AT_ONCE)
    assert done.returncode == 2 and "source.content" in done.stderr
    source.write_bytes(old)  # another inode and other times
    done = gristmill("produce", path, "--out", str(out), *AT_ONCE)
    assert done.returncode == 0, done.stderr
    assert gristmill("audit", str(out)).returncode == 0
    whole = tmp_path / "whole"
    assert gristmill("produce", path, "--out", str(whole), *AT_ONCE).returncode == 0
    assert kept_hashes(str(out)) == kept_hashes(str(whole))


def test_a_parquet_source_between_two_starts(tmp_path: Path) -> None:
    """The fingerprint covers both ends of a Parquet file; the manifest covers its middle."""
    source, out = tmp_path / "topics.parquet", tmp_path / "out"
    path = recipe(tmp_path, parquet(source))
    old = source.read_bytes()

    def produce(asks: int) -> Any:
        return gristmill("produce", path, "--out", str(out), *AT_ONCE, "--set", f"limits.asks={asks}")

    assert produce(2 * LOT).returncode == 0
    record = json.loads((out / "manifest.json").read_text())["inputs"]["source"]
    assert record["way"] == "bytes"
    CHANGES["middle byte"](source)
    done = produce(4 * LOT)
    assert done.returncode == 2, done.stderr
    assert f"source {source} changed since this run began (its sizes are the same)" in last_line(done.stderr)
    source.write_bytes(old)
    NO_CHANGES["touched"](source)
    done = produce(4 * LOT)
    assert done.returncode == 0, done.stderr
    again = json.loads((out / "manifest.json").read_text())["inputs"]["source"]
    assert again["content"] == record["content"] and again["version"] != record["version"]


def test_an_output_without_a_record_gets_one(tmp_path: Path) -> None:
    source, out = tmp_path / "topics.parquet", tmp_path / "out"
    path = recipe(tmp_path, parquet(source))
    command = ("produce", path, "--out", str(out), *AT_ONCE, "--set")
    assert gristmill(*command, f"limits.asks={LOT}").returncode == 0
    manifest = json.loads((out / "manifest.json").read_text())
    record = manifest.pop("inputs")
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert gristmill("status", str(out)).returncode == 0
    done = gristmill(*command, f"limits.asks={2 * LOT}")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "manifest.json").read_text())["inputs"] == record


def test_the_watch_sees_new_files_and_ends_in_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    jsonl(tmp_path / "in" / "a.jsonl")
    watch = SourceWatch(open_source(SourceSpec(path=str(tmp_path / "in"))), Manifest("ab" * 16, {}, {}))
    jsonl(tmp_path / "in" / "b.jsonl")
    watch.look()  # it is too early
    monkeypatch.setattr("gristmill.jobs.produce.inputs.CHECK_S", 0.0)
    watch = SourceWatch(watch.source, watch.manifest)
    with pytest.raises(UserError, match=r"b\.jsonl changed .*it was not there before"):
        watch.look()
    watch.end()
    assert "b.jsonl changed" in caplog.text and "as it was" in caplog.text


# Inputs of stages and generators, which workers open.


def _texts(folder: Path) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps({"text": f"{ITEM} {i}"}) + "\n" for i in range(4)))
    return path


def _schema(folder: Path) -> Path:
    path = folder / "schema.json"
    path.write_text('{"type": "object", "required": ["a", "b"]}\n')
    return path


def _table(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text("topic,text\n" + "".join(f"topic {i},kind {i}\n" for i in range(20)))
    return path


def _model(folder: Path) -> Path:
    """A model of the stage `quality`, as far as `check` and `identity` read it."""
    card = {"format": 1, "identity": {"kind": "quality", "spec": {}}, "fingerprint": "f", "weights_sha256": "w"}
    path = folder / "model.json"
    path.write_text(json.dumps({**card, "facts": {"threshold": 0.5}}))
    return path


PARTS: dict[str, tuple[Callable[[Path], Path], Callable[[str], dict[str, Any]]]] = {
    "benchmark": (_texts, lambda path: {"kind": "decontaminate", "benchmarks": [{"name": "b", "path": path}]}),
    "benchmark folder": (
        _texts,
        lambda path: {"kind": "decontaminate", "benchmarks": [{"name": "b", "path": os.path.dirname(path)}]},
    ),
    "schema": (_schema, lambda path: {"kind": "json_schema", "file": path}),
    "references": (_table, lambda path: {"kind": "copies", "rows": {"path": path, "columns": ["topic"]}}),
    "dependency": (
        _table,
        lambda path: {
            "kind": "constraints",
            "dependencies": [{"determinants": ["topic"], "column": "text", "data": {"path": path}}],
        },
    ),
    "model": (_model, lambda path: {"kind": "quality", "path": os.path.dirname(path)}),
}


def compiled_with(folder: Path, stage: dict[str, Any]) -> tuple[CompiledRecipe, LotPipeline]:
    """The compiled recipe, and its pipeline as a worker gets it."""
    compiled = compile_recipe(load(recipe(folder, jsonl(folder / "topics.jsonl"), stages=[stage])))
    compiled.check()
    pipeline = LotPipeline(compiled.plan, compiled.stages, compiled.schema, compiled.recipe.output)
    return compiled, pickle.loads(pickle.dumps(pipeline))


@pytest.mark.parametrize("change", ["replaced at the same size", "middle byte", "appended", "removed", "a folder"])
@pytest.mark.parametrize("part", PARTS)
def test_a_worker_opens_what_the_driver_has_read(tmp_path: Path, part: str, change: str) -> None:
    make, stage = PARTS[part]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in")
    _, pipeline = compiled_with(tmp_path, stage(str(path)))
    CHANGES[change](path)
    with pytest.raises(UserError, match="changed since this run began") as error:
        pipeline.open()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("refuse", ["", "a "])  # or every row of the first lot is rejected
def test_a_start_gives_no_other_name_to_the_same_model(
    refuse: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The content of a model is identity; its name is a column of every row."""

    def named(name: str | None) -> str:
        generator = {"kind": "tests.paid:Paid", "folder": str(tmp_path), "name": name, "refuse": refuse}
        source = {"items": ["a river", "a bridge"], "cycle": True}
        table = {"name": "named", "lot_size": 4, "source": source, "method": {"kind": "prompt"}, "limits": {"asks": 8}}
        return write(tmp_path / "recipe.toml", {**table, "generator": {k: v for k, v in generator.items() if v}})

    out = str(tmp_path / "out")
    commit_lots(named("small"), out, 2)
    assert main(["produce", named("large"), "--out", out]) == 2
    line = capsys.readouterr().err.strip()
    assert "model = 'small', and rows of this recipe would have 'large': set generator.name = \"small\", or" in line
    assert "\n" not in line
    assert main(["produce", named(None), "--out", out]) == 2
    assert main(["produce", named("small"), "--out", out]) == 0
