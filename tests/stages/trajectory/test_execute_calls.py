"""The calls of rows, run again."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from gristmill.engines.contract import Reply, ToolCall
from gristmill.generators.text.agent.turns import Turn, result_message
from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.tools.contract import TrajectoryState
from gristmill.stages.trajectory.execute_calls import ExecuteCalls, ExecuteCallsSpec
from gristmill.stages.trajectory.messages import MESSAGES
from tests.conftest import ROOT
from tests.stages.trajectory.test_checks import ANSWER, USER, step

TOOLS = [{"kind": "file", "file": str(ROOT / "recipes" / "tools" / "library.py")}, {"kind": "python"}]


def stage_of(**table: Any) -> ExecuteCalls:
    stage = ExecuteCalls(build(ExecuteCallsSpec, {"tools": TOOLS, **table}, "stages[0]"))
    stage.check()
    stage.open()
    return stage


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, ExecuteCalls]]:
    made = {"own": stage_of(), "reference": stage_of(reference="right"), "lenient": stage_of(must_succeed=False)}
    yield made
    for stage in made.values():
        stage.close()


def judge(stage: ExecuteCalls, messages: list[Any], right: str | None = None) -> tuple[str, str | None]:
    arrays = [pa.array([messages], MESSAGES.type), pa.array([right], pa.string()), pa.array([None], REJECT.type)]
    (found,) = stage.run(pa.RecordBatch.from_arrays(arrays, names=["messages", "right", "reject"])).to_pylist()
    verdict = found["execute_calls_verdict"]
    assert found["reject"] == (None if verdict == "passed" else f"execute_calls:{verdict}")
    return verdict, found["execute_calls_detail"]


FEE = step("late_fee", "1.00", days_late=5)
CELLS = [*step("python", "(no output)", code="x = 2"), *step("python", "4", "2", code="x * 2")]


@pytest.mark.parametrize(
    ("messages", "verdict"),
    [
        ([USER, *FEE, ANSWER], "passed"),
        ([USER, *CELLS, ANSWER], "passed"),
        ([USER, *CELLS[2:], ANSWER], "failed_call"),
        ([USER, *step("late_fee", "9.00", days_late=5)], "differs"),
        ([USER, FEE[0]], "differs"),
        ([USER, *step("late_fee", days="5")], "wrong_call"),
        ([USER, *step("fly")], "wrong_call"),
        ([USER, *step("late_fee", days_late=-1)], "failed_call"),
        ([USER, ANSWER], "no_calls"),
    ],
)
def test_calls_must_do_what_the_row_says(stages: dict[str, ExecuteCalls], messages: list[Any], verdict: str) -> None:
    assert judge(stages["own"], messages)[0] == verdict


def test_another_call_with_the_same_result_is_as_good(stages: dict[str, ExecuteCalls]) -> None:
    stage = stages["reference"]

    def right(name: str, **arguments: Any) -> str:
        return json.dumps([{"name": name, "arguments": arguments}])

    assert judge(stage, FEE, right("late_fee", days_late=10, reader="student"))[0] == "passed"
    verdict, detail = judge(stage, FEE, right("late_fee", days_late=6))
    assert verdict == "differs" and detail == "late_fee: '1.00', expected '1.20'"
    assert judge(stage, FEE, json.dumps([json.loads(right("late_fee", days_late=5))[0]] * 2))[0] == "differs"
    assert [judge(stage, FEE, text)[0] for text in (None, "{", "[]", "[1]")] == ["no_reference"] * 4


def test_failed_calls_may_be_part_of_a_row(stages: dict[str, ExecuteCalls]) -> None:
    message = "Error: ValueError: days_late must not be negative"
    failed = step("late_fee", message, days_late=-1)
    assert judge(stages["lenient"], [USER, *failed, *step("late_fee", "1.00", "2", days_late=5), ANSWER]) == (
        "passed",
        None,
    )
    assert judge(stages["lenient"], step("late_fee", "fine", days_late=-1))[0] == "differs"


@pytest.mark.parametrize(("name", "arguments"), [("", ""), ("", "<b"), ("late_fee", "{"), ("late_fee", '{"a": 1}\0')])
def test_calls_that_could_not_be_read_fail_again_as_they_did(
    stages: dict[str, ExecuteCalls], name: str, arguments: str
) -> None:
    turn = Turn("", (ToolCall("c", name, arguments),), Reply("", "stop", 1, 1))
    result = stages["lenient"]._toolset.call(turn.calls[0], TrajectoryState())
    row = [USER, turn.message(), result_message(turn.calls[0], result), ANSWER]
    assert judge(stages["lenient"], row) == ("passed", None)
    assert judge(stages["own"], row)[0] == "wrong_call"


def test_cells_that_read_the_clock_have_the_same_result(stages: dict[str, ExecuteCalls]) -> None:
    code = "import datetime, uuid\nprint(datetime.datetime.now(), uuid.uuid4())"
    with_clock = ToolCall("1", "python", json.dumps({"code": code}))
    other = stage_of()
    text = other._toolset.call(with_clock, TrajectoryState()).text
    other.close()
    assert judge(stages["own"], [USER, *step("python", text, code=code), ANSWER]) == ("passed", None)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([], "at least one table"),
        ([{"kind": "mcp", "command": ["true"]}], "must be deterministic"),
        ([{**TOOLS[0], "deterministic": False}], "must be deterministic"),
    ],
)
def test_bad_settings_are_refused(tools: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(ExecuteCallsSpec, {"tools": tools}, "stages[0]")
