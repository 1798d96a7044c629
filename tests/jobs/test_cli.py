"""The command line as a user meets it."""

import json
import time
from pathlib import Path

import datasets
import duckdb
import pandas
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.conftest import gristmill
from tests.outputs import kept_hashes, shard_paths
from tests.recipes import STAGES, canned

FLAGS = {
    "produce": {"--help", "--out", "--set", "--dry-run"},
    "preview": {"--help", "-n", "--set", "--json"},
    "fit": {"--help", "--out", "--set", "--dry-run"},
    "evaluate": {"--help", "--real-train", "--real-holdout", "--schema", "--target", "--model", "--seed"}
    | {"--max-rows", "--out", "--json", "--text-column", "--perplexity-model", "--student", "--teacher"},
    "compare": {"--help", "--real", "--holdout", "--text-column", "--tokens", "--seeds", "--student"}
    | {"--set", "--out", "--dry-run", "--json"},
    "audit-privacy": {"--help", "--out", "--set", "--data", "--canaries", "--samples", "--seed", "--json"},
    "study": {"--help", "--out", "--set", "--dry-run"},
    "tune": {"--help", "--set", "--minutes", "--asks", "--json"},
    "flow": {"--help", "--out", "--set", "--dry-run"},
    "status": {"--help", "--json", "--watch"},
    "queue": {"--help", "--address", "--quota", "--json"},
    "recipes": {"--help", "--json"},
    "report": {"--help"},
    "audit": {"--help", "--json"},
    "pack": {
        "--help",
        "--to",
        "--public",
        "--format",
        "--facts",
        "--shard-mb",
        "--seed",
        "--without",
        "--without-reasoning",
        "--dry-run",
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of the canned generator through every stage."""
    folder = tmp_path_factory.mktemp("made")
    done = gristmill("produce", canned(folder, num_asks=600, lot_size=64), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    assert "generated" in done.stdout and "output:" in done.stdout
    return folder / "out"


def test_the_flag_set_is_frozen() -> None:
    from gristmill.jobs.verbs import parser

    verbs = next(a for a in parser()._actions if a.dest == "verb")
    assert {
        n: {o for a in p._actions for o in a.option_strings if o != "-h"} for n, p in verbs.choices.items()
    } == FLAGS


def test_help_is_instant_and_teaches() -> None:
    started = time.monotonic()
    done = gristmill("--help", own_process=True)
    assert time.monotonic() - started < 5  # a second or less on a quiet machine; importing ray alone takes more
    assert done.returncode == 0 and "ray job submit" in done.stdout


def test_generated_is_kept_plus_rejected_everywhere(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    totals = manifest["totals"]
    status = json.loads(gristmill("status", str(made), "--json").stdout)
    assert status["totals"] == totals and status["state"] == "complete"
    kept = pq.read_table(made / "kept")
    rejected = pq.read_table(made / "rejected")
    assert totals["asks"] == 600 == kept.num_rows + rejected.num_rows
    assert totals["kept"] == kept.num_rows
    reasons = {r["values"].as_py(): r["counts"].as_py() for r in rejected.column("reject").value_counts()}
    assert totals["rejected"] == reasons
    assert {"dedup:duplicate", "decontaminate:overlap", "finish:length"} <= set(reasons)
    named = {other for other in rejected.column("duplicate_of").to_pylist() if other}
    assert len(named) and named <= set(kept.column("id").to_pylist())
    assert "600" in gristmill("status", str(made)).stdout


def test_opens_as_it_is_everywhere(made: Path) -> None:
    num_kept = json.loads((made / "manifest.json").read_text())["totals"]["kept"]
    paths = shard_paths(made)
    assert pyarrow.dataset.dataset(str(made / "kept")).count_rows() == num_kept
    assert duckdb.sql(f"select count(*) from '{made}/kept/*.parquet'").fetchall() == [(num_kept,)]
    assert len(pandas.concat(pandas.read_parquet(p) for p in paths)) == num_kept
    rows = datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=str(made.parent / "hf"))
    assert len(rows) == num_kept and rows[0]["text"]


def test_again_is_a_no_op_and_a_change_is_refused(made: Path) -> None:
    recipe, before = str(made.parent / "recipe.toml"), kept_hashes(str(made))
    again = gristmill("produce", recipe, "--out", str(made))
    assert again.returncode == 0 and "is there already" in again.stderr
    changed = gristmill("produce", recipe, "--out", str(made), "--set", "method.template=Sing of {text}.")
    assert changed.returncode == 2
    assert "template" in changed.stderr and '"Write about {text}." -> "Sing of {text}."' in changed.stderr
    assert kept_hashes(str(made)) == before


def test_a_full_run_can_be_lengthened_and_a_ragged_one_not(tmp_path: Path) -> None:
    recipe, out = canned(tmp_path, num_asks=64, lot_size=32), str(tmp_path / "out")
    assert gristmill("produce", recipe, "--out", out).returncode == 0
    longer = gristmill("produce", recipe, "--out", out, "--set", "limits.asks=100")
    assert longer.returncode == 0, longer.stderr
    for asks in (110, 200):  # 110 asks are no more lots than 100, and are not there all the same
        ragged = gristmill("produce", recipe, "--out", out, "--set", f"limits.asks={asks}")
        assert ragged.returncode == 2 and "multiple of 32" in ragged.stderr
    shorter = gristmill("produce", recipe, "--out", out, "--set", "limits.asks=50")
    assert shorter.returncode == 0 and "is there already" in shorter.stderr
    assert gristmill("audit", out).returncode == 0


def test_limits_stop_at_a_lot_border(tmp_path: Path) -> None:
    recipe = canned(tmp_path, lot_size=32, limits={"kept_rows": 100, "asks": 100_000})
    assert gristmill("produce", recipe, "--out", str(tmp_path / "a")).returncode == 0
    totals = json.loads((tmp_path / "a" / "manifest.json").read_text())["totals"]
    assert totals["kept"] >= 100 and totals["asks"] == 32 * totals["num_lots"]
    last = pq.read_metadata(shard_paths(tmp_path / "a")[-1]).num_rows
    assert totals["kept"] - last < 100
    tokens = gristmill("produce", recipe, "--out", str(tmp_path / "b"), "--set", "limits.kept_tokens=5000")
    assert tokens.returncode == 0
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["totals"]["kept_tokens"] >= 5000


def test_a_source_that_ends_too_early_is_told(tmp_path: Path) -> None:
    recipe = canned(tmp_path, source={"cycle": False, "samples": 5}, limits={"asks": None, "kept_rows": 50})
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"))
    assert done.returncode == 3
    assert "the source ended before limits.kept_rows" in done.stdout


def test_malformed_rows_cost_themselves_only(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"broken\n{"other": 1}\n[1]\n' + '{"text": "b"}\n' * 4)
    recipe = canned(tmp_path, source={"items": None, "path": str(rows), "cycle": False}, stages=STAGES[:1])
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"), "--set", "generator.bad=0")
    assert done.returncode == 0, done.stderr
    totals = json.loads((tmp_path / "out" / "manifest.json").read_text())["totals"]
    assert totals["asks"] == 8 and totals["kept"] == 5
    assert totals["rejected"] == {"generator:malformed_ask": 2, "generator:missing_field": 1}
    assert gristmill("audit", str(tmp_path / "out")).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("generator.kind=techer", "did you mean 'teacher'"),
        ("cluster.address=ray://127.0.0.1:9", "cannot reach Ray"),
        ("stages.3.benchmarks=[{name='x', path='/nowhere.jsonl'}]", "/nowhere.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_not_zero(change: str, message: str, tmp_path: Path) -> None:
    is_elsewhere = change.startswith("cluster.address")  # a run in this process would take the Ray that is there
    words = ("produce", canned(tmp_path), "--out", str(tmp_path / "out"), "--set", change)
    done = gristmill(*words, own_process=is_elsewhere)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_no_room_and_wrong_model_stop_before_any_engine(tmp_path: Path) -> None:
    recipe = canned(tmp_path, stages=STAGES[:1])
    done = gristmill(
        "produce", recipe, "--out", str(tmp_path / "out"), "--set", "generator={kind='teacher', model='/no/such/model'}"
    )
    assert done.returncode == 2 and "/no/such/model" in done.stderr
    crowded = gristmill(
        *("produce", recipe, "--out", str(tmp_path / "out"), "--set", "cluster.replicas=50"),
        *("--set", "generator={kind='teacher', model='package:smollm2', num_cpus=2}"),
    )
    assert crowded.returncode == 2 and "no room on the cluster" in crowded.stderr


def test_wrong_key_and_missing_bucket(tmp_path: Path, s3: str) -> None:
    recipe = canned(tmp_path)
    missing = gristmill("produce", recipe, "--out", "s3://no-such-bucket/out")
    assert missing.returncode == 2 and "no such bucket" in missing.stderr
    wrong = gristmill("produce", recipe, "--out", f"{s3}/out", env={"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert wrong.returncode == 2 and "access refused" in wrong.stderr
    assert "Traceback" not in missing.stderr + wrong.stderr


def test_dry_run_starts_nothing(tmp_path: Path) -> None:
    done = gristmill("produce", canned(tmp_path), "--out", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == 0 and "fingerprint" in done.stdout
    assert not (tmp_path / "out").exists()


def test_status_and_audit_of_nothing(tmp_path: Path) -> None:
    for verb, what in (
        ("status", "no manifest.json there"),
        ("audit", "it holds no manifest.json, study.json, mixture.json, takedown.json or flow.json"),
    ):
        done = gristmill(verb, str(tmp_path))
        assert done.returncode == 2 and what in done.stderr
