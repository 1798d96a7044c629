"""Declared constraints: what breaks them, what is missing, and what a recipe may not say."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.verify.constraints import Constraints, ConstraintsSpec

FIELDS = [pa.field("a", pa.float64()), pa.field("b", pa.int64()), pa.field("who", pa.string()), REJECT]


def stage(**table: Any) -> Constraints:
    made = Constraints(build(ConstraintsSpec, table, "stages[0]"))
    made.check()
    made.open()
    return made


def rejects(checked: Constraints, *rows: tuple[Any, Any, Any]) -> list[str | None]:
    batch = pa.RecordBatch.from_pylist([{"a": a, "b": b, "who": w} for a, b, w in rows], pa.schema(FIELDS))
    return list(checked.run(batch).column("reject").to_pylist())


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**40), 2**40))
def test_a_comparison_of_columns_holds_or_is_named(a: float, b: int) -> None:
    holds = a == a and abs(a) != float("inf") and a <= b
    checked = stage(rules=["a <= b"])
    assert rejects(checked, (a, b, "x")) == [None if holds else "constraints:rule"]


def test_the_first_broken_rule_is_the_evidence() -> None:
    checked = stage(rules=["a >= 17", "90 >= a", "a < b", 'who != "nobody"'])
    batch = pa.RecordBatch.from_pylist(
        [
            {"a": 20.0, "b": 30, "who": "x"},
            {"a": 12.0, "b": 3, "who": "nobody"},
            {"a": 91.0, "b": 99, "who": "x"},
            {"a": 20.0, "b": 20, "who": "x"},
            {"a": 20.0, "b": 30, "who": "nobody"},
        ],
        pa.schema(FIELDS),
    )
    said = checked.run(batch).column("constraint").to_pylist()
    assert said == [None, "a >= 17", "90 >= a", "a < b", 'who != "nobody"']


def test_missing_values_break_only_what_requires_them() -> None:
    assert rejects(stage(rules=["a <= b"]), (None, 1, "x"), (1.0, None, "x")) == [None, None]
    assert rejects(stage(required=["who"]), (1.0, 1, None)) == ["constraints:required"]


def test_dependencies_are_declared_by_pairs_or_by_rows(tmp_path: Path) -> None:
    checked = stage(dependencies=[{"determinants": ["who"], "column": "b", "pairs": {"x": 1, "y": 2}}])
    found = rejects(checked, (0.0, 1, "x"), (0.0, 2, "x"), (0.0, 1, "z"), (0.0, 1, None))
    assert found == [None, "constraints:dependency", "constraints:dependency", None]
    lenient = stage(dependencies=[{"determinants": ["who"], "column": "b", "pairs": {"x": 1}, "others": True}])
    assert rejects(lenient, (0.0, 7, "z"), (0.0, 7, "x")) == [None, "constraints:dependency"]
    (tmp_path / "map.csv").write_text("who,a,b\nx,1.0,5\nx,2.0,6\n")
    both = stage(
        dependencies=[{"determinants": ["who", "a"], "column": "b", "data": {"path": str(tmp_path / "map.csv")}}]
    )
    assert rejects(both, (1.0, 5, "x"), (2.0, 5, "x")) == [None, "constraints:dependency"]


def test_rows_that_contradict_each_other_are_no_dependency(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("who,b\nx,5\nx,6\n")
    with pytest.raises(UserError, match="is not a dependency: x has b 5 and 6"):
        stage(dependencies=[{"determinants": ["who"], "column": "b", "data": {"path": str(tmp_path / "map.csv")}}])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "give rules, dependencies or required"),
        ({"rules": ["a<=b"]}, "is not a rule"),
        ({"rules": ["1 <= 2"]}, "names no column"),
        ({"dependencies": [{"determinants": ["who"], "column": "b"}]}, "either 'pairs' or 'data'"),
        ({"dependencies": [{"determinants": ["who", "a"], "column": "b", "pairs": {"x": 1}}]}, "one determinant"),
    ],
)
def test_what_a_recipe_may_not_say(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stage(**table)


def test_text_is_not_compared_with_numbers() -> None:
    with pytest.raises(UserError, match="compares text with a number"):
        rejects(stage(rules=["who <= 3"]), (1.0, 1, "x"))
