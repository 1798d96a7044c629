"""Single calls: the question, the right call and its result, checked by executing it."""

import json
from typing import Any

import pytest

from gristmill.engines.contract import Reply, ToolCall
from gristmill.records.errors import UserError
from tests.conftest import ROOT
from tests.generators.text.script import method_of, told

LIBRARY = {"kind": "file", "file": str(ROOT / "recipes" / "tools" / "library.py"), "only": ["late_fee"]}
TABLE: dict[str, Any] = {"tools": [LIBRARY]}
SEEDS = (0, 1)  # of an ask for either of two tools


def calls(*arguments: Any, name: str = "late_fee", finish: str = "tool_calls") -> Reply:
    made = tuple(ToolCall("x", name, each if isinstance(each, str) else json.dumps(each)) for each in arguments)
    return Reply("", finish, 10, 5, tool_calls=made)


def run(*script: Any, **table: Any) -> Any:
    return told("tool_calls", {**TABLE, **table}, {"topic": "a desk", "q": "Five days late, what now?"}, list(script))


def test_a_row_is_a_question_a_call_and_its_result() -> None:
    row, engine, session = run('Request: "What do I pay for five days?"', calls({"days_late": 5}, {"days_late": 1}))
    assert "late_fee" in engine.asked[0] and "a desk" in engine.asked[0] and not engine.tools[0] and engine.tools[1]
    assert row["question"] == "What do I pay for five days?" and row["tool"] == "late_fee"
    assert json.loads(row["calls"])[0] == {"name": "late_fee", "arguments": {"days_late": 5}}
    assert row["result"] == "1.00\n0.20" and row["text"].startswith(row["question"])
    assert [m["role"] for m in row["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [turn["turn"] for turn in session.turns] == ["question", "call"]


def test_samples_keep_the_first_right_call_and_all_results() -> None:
    script = [calls({"days": 5}), calls({"days_late": 5}), calls({"days_late": 6})]
    row, engine, session = run(*script, samples=3, given_question="{q}")
    assert session.finish == "stop", "a call is no answer that was cut off"
    assert row["results"] == [None, "1.00", "1.20"] and row["result"] == "1.00" and "tool" not in row
    assert row["question"] == "Five days late, what now?" and len(engine.asked) == 3 == len(set(engine.seeds))


@pytest.mark.parametrize("wrong", [Reply('{"tool": "la', "length", 1, 1), Reply("I see.", "stop", 1, 1), {"tool": 1}])
def test_an_answer_in_json_that_cannot_be_read_is_a_wrong_sample(wrong: Any) -> None:
    right = {"tool": "late_fee", "arguments": {"days_late": 5}}
    row, _, _ = run(right, wrong, wrong, samples=3, calls="json", given_question="{q}")
    assert row["results"] == ["1.00", None, None] and row["result"] == "1.00"
    row, _, _ = run(wrong, right, samples=2, calls="json", given_question="{q}")
    assert row["results"] == [None, "1.00"]
    reason = "cut_call" if isinstance(wrong, Reply) and wrong.finish == "length" else "no_call"
    assert run(wrong, samples=2, calls="json", given_question="{q}")[0] == reason


def test_calls_as_json_are_forced_by_the_schema() -> None:
    row, engine, _ = run("What do I pay?", {"tool": "late_fee", "arguments": {"days_late": 2}}, calls="json")
    assert row["result"] == "0.40" and engine.schemas[1]["properties"]["tool"] == {"const": "late_fee"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (["Q?", "I do not know."], "no_call"),
        (["Q?", Reply("cut", "length", 1, 1)], "cut_call"),
        (["Q?", calls({"days": 1})], "wrong_call"),
        (["Q?", calls("{")], "wrong_call"),
        (["Q?", calls({"days_late": 1}, name="lend")], "wrong_call"),
        (["Q?", calls({"days_late": -1})], "failed_call"),
        ([Reply("Q", "length", 1, 1)], "cut_question"),
    ],
)
def test_what_makes_no_row_has_a_name(script: list[Any], reason: str) -> None:
    assert run(*script)[0] == reason


def test_a_call_of_another_tool_than_the_question_is_for() -> None:
    """The tool is drawn by the seed, and the model always calls the same one."""
    script = ["Q?", calls({"expression": "1"}, name="calculate")]

    def reasons(**table: Any) -> set[Any]:
        tools = [{**LIBRARY, "only": ["late_fee", "calculate"]}]
        rows = [told("tool_calls", {"tools": tools, **table}, {"topic": "t"}, script, seed)[0] for seed in SEEDS]
        return {row if isinstance(row, str) else row["result"] for row in rows}

    assert reasons() == {"other_tool", "1"} and reasons(must_match=False) == {"1"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"tools": []}, "tools needs at least one table"),
        ({**TABLE, "samples": 0}, "must be at least 1"),
        ({**TABLE, "templates": {"call": "x"}}, "templates.call"),
        ({**TABLE, "templates": {"question": "{tool}"}}, "must hold {tools}"),
        ({**TABLE, "given_question": "{q}", "must_match": False}, "must_match has no effect"),
        ({**TABLE, "given_question": "{q}", "templates": {"question": "{tools} {tool}"}}, "has no effect"),
    ],
)
def test_bad_settings_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        method_of("tool_calls", table)
