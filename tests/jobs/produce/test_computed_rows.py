"""Runs whose source computes its rows: the rows of the output are those of the function, also after a resume."""

import json
from pathlib import Path
from typing import Any

import gristmill
from gristmill.records.readers.sources import SourceSpec, open_source
from tests.recipes import write
from tests.records.functions.test_functions import PLUGIN

KEYS = {"families": ["arithmetic", "knights", "sorting"], "levels": [1, 2]}
RECIPE: dict[str, Any] = {
    "name": "computed",
    "lot_size": 16,
    "seed": 5,
    "source": {"kind": "tasks", **KEYS, "samples": 2, "together": True, "carry": ["task", "difficulty"]},
    "generator": {"kind": "passthrough", "columns": ["question", "reference"], "origin": "synthetic"},
    "stages": [{"kind": "answer", "column": "reference"}],
    "limits": {"asks": 32},
}


def test_a_run_of_tasks(ray_session: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    gristmill.produce(RECIPE, out)
    run = gristmill.produce(RECIPE, out, ["limits.asks=64"])
    rows = run.rows().to_table(columns=["source_id", "question", "task", "difficulty", "origin"]).to_pylist()
    source = open_source(SourceSpec(kind="tasks", keys=KEYS), seed=5)
    questions = [json.loads(text)["question"] for _, text in source.rows(0, 32)]
    assert [row["source_id"] for row in rows] == [f"tasks:{ask // 2}" for ask in range(64)]
    assert [row["question"] for row in rows] == [questions[ask // 2] for ask in range(64)]
    assert {row["task"] for row in rows} == {"arithmetic", "knights", "sorting"}
    assert {row["difficulty"] for row in rows} == {"1", "2"} and {row["origin"] for row in rows} == {"synthetic"}
    assert gristmill.audit(out).totals["ok"] is True


def test_a_plug_in_travels_to_the_workers(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "travelling_squares.py").write_text(PLUGIN)
    source = {"kind": "travelling_squares:Squares", "step": 3, "num_rows": 20}
    tables = {**RECIPE, "source": source, "stages": [], "limits": {}}
    tables["generator"] = {**RECIPE["generator"], "columns": ["text"]}
    run = gristmill.produce(write(tmp_path / "recipe.toml", tables), tmp_path / "out")
    texts = run.rows().to_table(columns=["text"]).column("text").to_pylist()
    assert [text.split()[0] for text in texts] == [str((3 * number) ** 2) for number in range(20)]
