"""Balance and novelty in whole runs: exact to the row, the same bytes whatever the run lived through, and proven."""

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import gristmill
from tests.outputs import kept_hashes, shard_paths
from tests.recipes import AT_ONCE, STAGES, canned, write

AUDIENCES = ["pupils", "farmers", "nurses", "sailors"]
QUOTAS = {"pupils": 40, "farmers": 25, "nurses": 60}
METHOD = {"kind": "textbook", "topic": "text", "audiences": AUDIENCES, "template": "{topic}, {audience}, {style}"}


def recipe(folder: Path, **changes: Any) -> str:
    balance = {"kind": "balance", "column": "audience", "quotas": QUOTAS, "other": 0}
    generator = {"num_words": 60, "seconds_per_ask": 0.01, "duplicates": 0.4}
    return canned(folder, 1920, method=METHOD, stages=[*STAGES, balance], generator=generator, **changes)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("balanced")
    done = gristmill("produce", recipe(folder), "--out", str(folder / "out"), *AT_ONCE)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_quotas_are_full_to_the_row_and_end_the_run(balanced: Path) -> None:
    kept: Counter[str] = Counter()
    for path in shard_paths(balanced):
        kept.update(pq.read_table(path, columns=["audience"]).column(0).to_pylist())
    assert kept == QUOTAS
    book = json.loads((balanced / "manifest.json").read_text())
    assert book["state"] == "complete" and book["totals"]["asks"] < 1920
    assert book["totals"]["admitted"] == {"balance": dict(sorted(QUOTAS.items()))}
    offered, rejected = book["totals"]["offered"]["balance"], book["totals"]["rejected"]
    assert sum(offered.values()) == book["totals"]["kept"] + rejected["balance:quota"]
    assert rejected["dedup:duplicate"] > 0
    audit = gristmill("audit", str(balanced))
    assert audit.returncode == 0, audit.stdout
    page = (balanced / "report.html").read_text()
    assert "Balance by audience" in page and "sailors" in page
    again = gristmill("produce", recipe(balanced.parent / "again"), "--out", str(balanced), *AT_ONCE)
    assert again.returncode == 0 and "all of this run is there already" in again.stderr


def test_a_stop_and_another_window_change_no_byte(balanced: Path, tmp_path: Path) -> None:
    out, narrow = str(tmp_path / "out"), recipe(tmp_path, cluster={"window": 2})
    for settings in (["--set", "limits.asks=96"], []):
        done = gristmill("produce", narrow, "--out", out, *AT_ONCE, *settings)
        assert done.returncode == 0, done.stderr
    assert "going on after" in done.stderr
    assert kept_hashes(out) == kept_hashes(str(balanced))


def test_the_audit_sees_a_quota_that_was_passed(balanced: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", balanced, out], check=True)
    book = json.loads((out / "manifest.json").read_text())
    stage = next(s for s in book["recipe"]["stages"] if s["kind"] == "balance")
    stage["quotas"]["farmers"] = 24
    (out / "manifest.json").write_text(json.dumps(book))
    audit = gristmill("audit", str(out))
    assert audit.returncode == 1 and "is kept, but by the rows before it is balance:quota" in audit.stdout


def test_novelty_without_dedup_is_the_same_in_any_window(tmp_path: Path) -> None:
    novelty = {"kind": "novelty", "column": "text", "max_rouge_l": 0.6}
    changes: dict[str, Any] = {"stages": [{"kind": "finish"}, novelty], "generator": {"num_words": 12}}
    outs = [tmp_path / "one", tmp_path / "many"]
    for out, window in zip(outs, (1, 12)):
        path = canned(tmp_path / f"r{window}", 256, lot_size=16, cluster={"window": window}, **changes)
        done = gristmill("produce", path, "--out", str(out))
        assert done.returncode == 0, done.stderr
    assert kept_hashes(str(outs[0])) == kept_hashes(str(outs[1]))
    rejected = [r for p in sorted((outs[0] / "rejected").glob("*.parquet")) for r in pq.read_table(p).to_pylist()]
    similar = [row for row in rejected if row["reject"] == "novelty:similar"]
    kept = {row["id"]: row for path in shard_paths(outs[0]) for row in pq.read_table(path).to_pylist()}
    assert len(similar) > 20 and all(row["nearest"] in kept and row["rouge_l"] >= 0.6 for row in similar)
    assert all((row["rouge_l"] or 0) < 0.6 for row in kept.values())
    assert gristmill("audit", str(outs[0])).returncode == 0


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([{"kind": "balance", "column": "text", "other": 1}, {"kind": "dedup"}], "dedup comes before balance"),
        ([{"kind": "balance", "column": "topic", "other": 1}], "reads column 'topic', which is not there"),
        ([{"kind": "balance", "column": "text"}], "give quotas"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(stages: list, told: str, tmp_path: Path) -> None:
    done = gristmill("produce", canned(tmp_path, stages=stages), "--out", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == 2 and told in done.stderr


def test_rounds_are_for_methods_that_feed(tmp_path: Path) -> None:
    path = canned(tmp_path, rounds={"num": 2}, source={"cycle": False})
    done = gristmill("produce", path, "--out", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == 2 and "[rounds] is for methods that feed on kept rows" in done.stderr


def test_rows_that_no_model_wrote_are_balanced_and_shown_so(tmp_path: Path) -> None:
    items = [{"text": f"row {n} of {n * n}", "label": "even" if n % 2 else "odd"} for n in range(48)]
    given = write(
        tmp_path / "given.toml",
        {
            "name": "given",
            "lot_size": 16,
            "source": {"items": items, "carry": ["label"]},
            "generator": {"kind": "passthrough", "columns": ["text"]},
            "stages": [{"kind": "balance", "column": "label", "quotas": {"even": 5}}],
            "cluster": {"num_cpus": 2},
        },
    )
    done = gristmill("produce", given, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Balance by label" in page and "Lengths of kept rows" not in page
    kept = [row["label"] for path in shard_paths(tmp_path / "out") for row in pq.read_table(path).to_pylist()]
    assert Counter(kept) == {"even": 5, "odd": 24}
