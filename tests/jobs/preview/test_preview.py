"""`gristmill preview`: the rows of a run with their verdicts, without an output and without Ray; and with an engine."""

import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import gristmill
from gristmill.jobs.cli import main
from gristmill.jobs.preview.show import show_rows
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.jobs.terminal.console import open_console
from gristmill.records.errors import UserError
from gristmill.records.shipped import SHIPPED
from tests import session
from tests.recipes import STAGES, canned

QUOTAS = {"pupils": 16, "nurses": 2}
BALANCE = {"kind": "balance", "column": "audience", "quotas": QUOTAS, "other": 0}
METHOD = {"kind": "textbook", "topic": "text", "audiences": ["pupils", "nurses"], "template": "{topic}, {audience}"}
CANNED = ["generator.kind=canned"]
SLOW = {"decontaminated", "long-documents", "megadoc"}  # they load an encoder
# Rows of these recipes are compared with the source, a reference or each other, or scored by a judge: a canned text
# rarely passes.
STRICT = {
    *("code-given", "difficulty", "judged", "long-documents", "math-answers", "megadoc", "reasoning"),
    *("tasks", "tasks-code", "tool-calls"),
}


def recipe(folder: Path, **changes: Any) -> str:
    generator = {"num_words": 60, "seconds_per_ask": 0, "duplicates": 0.9, "bad": 0.05, "contaminated": 0.0}
    return canned(folder, 640, 16, method=METHOD, generator=generator, **{"stages": [*STAGES, BALANCE], **changes})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return gristmill.preview(recipe(tmp_path_factory.mktemp("preview")), 60)


def test_each_row_names_what_every_stage_said(rows: list[dict[str, Any]]) -> None:
    names = ["generator", *(stage["kind"] for stage in STAGES if stage["kind"] != "dedup"), "dedup", "balance"]
    assert len(rows) == 60
    for row in rows:
        assert [stage["stage"] for stage in row["stages"]] == names
        verdicts = [stage["verdict"] for stage in row["stages"]]
        rejects = [f"{s['stage']}:{s['reason']}" for s in row["stages"] if s["verdict"] == "reject"]
        assert rejects == ([row["reject"]] if row["reject"] else [])
        last = verdicts.index("reject") if rejects else len(verdicts)
        assert verdicts[:last] == ["pass"] * last and set(verdicts[last + 1 :]) <= {"not run"}
        assert all(not stage["findings"] for stage in row["stages"] if stage["verdict"] == "not run")
        assert row["tokens_out"] > 0 and row["columns"]["text"] and row["source"]["text"]


def test_duplicates_and_admission_are_decided_among_the_rows(rows: list[dict[str, Any]]) -> None:
    kept = [row for row in rows if row["reject"] is None]
    assert Counter(row["columns"]["audience"] for row in kept) == QUOTAS
    reasons = {row["reject"] for row in rows}
    assert {"balance:quota", "dedup:duplicate"} <= reasons
    for row in rows:
        if row["reject"] == "dedup:duplicate":
            dedup = next(stage for stage in row["stages"] if stage["stage"] == "dedup")
            assert dedup["findings"]["duplicate_of"] in {other["id"] for other in kept}


def test_they_are_the_first_rows_of_a_run(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    done = session.gristmill("produce", recipe(tmp_path), "--out", str(tmp_path / "out"), "--set", "limits.asks=64")
    assert done.returncode == 0, done.stderr
    made = {
        row["id"]: row for path in (tmp_path / "out").glob("*/*.parquet") for row in pq.read_table(path).to_pylist()
    }
    assert len(made) >= 16  # full quotas end the run at the end of a lot
    for row in rows[: len(made)]:
        same = made[row["id"]]
        words = row["columns"]["text"], row["reject"], row["source_id"]
        assert (same["text"], same["reject"], same["source_id"]) == words


def test_the_terminal_shows_panels_and_a_summary_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["preview", path, "-n", "12"]) == 0
    text = capsys.readouterr().out
    assert "row 12 of 12" in text and "balance" in text and "not run" in text and "rejected balance:quota" in text
    assert " of 12 rows; rejected: " in text
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["preview", path, "-n", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 3


@pytest.mark.parametrize(("num_rows", "limits", "num_shown"), [(5, {}, 6), (6, {}, 6), (1, {}, 3), (5, {"asks": 5}, 5)])
def test_the_samples_of_a_row_are_compared_as_in_a_run(
    num_rows: int, limits: dict[str, int], num_shown: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gristmill")
    logging.getLogger("gristmill").propagate = True
    rows = gristmill.preview(
        {
            "name": "groups",
            "lot_size": 12,
            "source": {"items": ["a", "b", "c"], "samples": 3, "together": True},
            "generator": {"kind": "canned", "num_words": 20},
            "stages": [{"kind": "canned_judge", "name": "judge"}, {"kind": "best_of"}],
            "limits": limits,
        },
        num_rows,
    )
    sizes = [row["stages"][-1]["findings"]["best_of_size"] for row in rows]
    assert len(rows) == num_shown and sizes == [3] * 3 + ([2] * 2 if limits else [3] * (num_shown - 3))
    notes = [record.getMessage() for record in caplog.records if "stay together" in record.getMessage()]
    assert notes == [f"preview: {num_shown} rows instead of {num_rows}, as the 3 samples of a row stay together"] * (
        num_shown > num_rows
    )


def test_without_an_engine_there_is_no_ray(tmp_path: Path) -> None:
    code = f"import sys, gristmill; gristmill.preview({recipe(tmp_path)!r}, 2); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-n", "0"], "-n 0: preview shows 1 to 1000 rows"),
        (["-n", "1001"], "-n 1001: preview shows 1 to 1000 rows"),
        (["--set", "generator.num_words=0"], "num_words must be at least 1"),
        (["--set", "method.topic=nowhere"], "reads the source column 'nowhere'"),
    ],
)
def test_what_cannot_be_previewed_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["preview", recipe(tmp_path), *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1 and not captured.out


def test_a_part_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gristmill.stages.filters.language import Language

    def fail(*_: Any) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(Language, "find", fail)
    with pytest.raises(UserError, match="language: RuntimeError: no luck"):
        gristmill.preview(recipe(tmp_path), 2)


def test_parts_with_an_engine_run_on_ray(tmp_path: Path, ray_session: None) -> None:
    pooled = recipe(tmp_path, cluster={"num_cpus": None})
    here, there = gristmill.preview(pooled, 8), gristmill.preview(pooled, 8, ["generator.pooled=true"])
    assert here == there


TEXT_RECIPES = sorted(
    path.stem
    for path in (SHIPPED / "recipes").glob("*.toml")
    if load_table(str(path)).get("generator", {"kind": "teacher"})["kind"]  # [[generators]] are teachers
    not in ("model", "simulator", "passthrough", "diffusers")
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.nightly] * (n in SLOW)) for n in TEXT_RECIPES])
def test_every_text_recipe_can_be_tried_without_a_model(name: str) -> None:
    """The canned generator gives replies that each method can read."""
    settings = [*CANNED, *(s for n, kind in enumerate(stage_kinds(name)) for s in stand_in(n, kind))]
    compiled = compile_recipe(load(f"package:{name}", settings))
    assert not compiled.pools
    rows = gristmill.preview(f"package:{name}", 6, settings)
    assert len(rows) >= 6  # whole groups of samples
    refused = [row["reject"] for row in rows if (row["reject"] or "").startswith("generator:")]
    assert len(refused) < len(rows), refused
    assert name in STRICT or any(row["reject"] is None for row in rows), [row["reject"] for row in rows]


def stage_kinds(name: str) -> list[str]:
    return [stage["kind"] for stage in load_table(f"package:{name}").get("stages", [])]


def stand_in(number: int, kind: str) -> list[str]:
    return [f"stages.{number}.kind=canned_judge"] if kind == "judge" else []


def test_any_columns_can_be_shown(capsys: pytest.CaptureFixture) -> None:
    """Messages with calls of tools, a list of calls, values that are not text, and none that reaches the terminal."""
    call = {"turn": "answer", "prompt": "p", "text": "\x1b[31mred", "tokens_in": 1, "tokens_out": 2}
    messages = [
        {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "add"}]},
    ]
    columns = {"messages": messages, "reasoning": "first\nthen", "image": "12 bytes", "numbers": [1, 2], "none": None}
    stages = [{"stage": "generator", "verdict": "reject", "reason": "no_answer", "findings": {}}]
    row = {
        "source": {"text": "x"},
        "columns": columns,
        "turns": [call],
        "stages": stages,
        "reject": "generator:no_answer",
    }
    show_rows([{**row, "finish": None, "tokens_in": 1, "tokens_out": None}], open_console())
    text = capsys.readouterr().out
    assert 'assistant: {"tool_calls": [{"id": "add"}]}' in text and "user: 2 + 3?" in text and "[1, 2]" in text
    assert "then" in text and "none" not in text and "\x1b[31mred" not in text and "kept 0 of 1" in text
