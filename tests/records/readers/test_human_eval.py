"""HumanEval as rows: faults change answers, and only answers."""

from typing import Any

import pytest

from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.human_eval import FAULTS


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(DataSpec("package:human-eval/faults")).to_pylist()
    return found


def test_every_task_has_one_right_program_and_one_of_each_fault(rows: list[dict[str, Any]]) -> None:
    tasks = read_table(DataSpec("package:human-eval"))
    assert tasks.num_rows == 164 and len(rows) == 164 * (1 + len(FAULTS))
    right = [row for row in rows if row["label"] == "right"]
    assert [row["text"] for row in right] == tasks.column("text").to_pylist()
    assert [row["tests"] for row in right] == tasks.column("tests").to_pylist()
    assert {row["fault"] for row in rows if row["label"] == "wrong"} == set(FAULTS)
    assert len({row["text"] for row in rows}) == len(rows)


def answers(program: str, entry: str, asked: list[tuple[Any, ...]]) -> list[Any]:
    space: dict[str, Any] = {}
    exec(program, space)
    return [space[entry](*given) for given in asked]


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        ("truncate_number", [(n + 0.25,) for n in range(60)]),
        ("below_zero", [([n, -n - n % 2],) for n in range(60)]),
        ("string_xor", [(f"{n:08b}", "01010101") for n in range(60)]),
        ("factorize", [(n,) for n in range(2, 62)]),
        ("fib", [(n,) for n in range(15)]),  # calls itself
    ],
)
def test_faults_are_faults(rows: list[dict[str, Any]], entry: str, asked: list[tuple[Any, ...]]) -> None:
    programs = {row["fault"]: row["text"] for row in rows if row["entry_point"] == entry}
    right = answers(programs[None], entry, asked)
    assert answers(programs["none"], entry, asked) == [None] * len(asked)
    altered = answers(programs["altered"], entry, asked)
    assert all(a != r and type(a) is type(r) for a, r in zip(altered, right))
    sometimes = answers(programs["sometimes"], entry, asked)
    num_wrong = sum(s != r for s, r in zip(sometimes, right))
    assert 0 < num_wrong < len(asked) * 0.6 and all(s in (r, a) for s, r, a in zip(sometimes, right, altered))
