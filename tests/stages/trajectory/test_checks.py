"""Bounds on trajectories, on made and on imported messages."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.generators.text.dialogue import MESSAGES as PLAIN_MESSAGES
from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.trajectory.checks import Trajectory, TrajectorySpec
from gristmill.stages.trajectory.messages import MESSAGES, trajectory_text

TOOLS = json.dumps([{"type": "function", "function": {"name": name}} for name in ("add", "look")])
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def step(name: str, result: str = "1", number: str = "1", **arguments: Any) -> list[dict[str, Any]]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": number, "type": "function", "function": function}
    answer = {"role": "tool", "content": result, "tool_call_id": number, "name": name}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}, answer]


def row(*messages: Any, tools: str | None = TOOLS, **table: Any) -> dict[str, Any]:
    """The findings of one row."""
    stage = Trajectory(build(TrajectorySpec, table, "stages[0]"))
    batch = {"messages": pa.array([list(messages)], MESSAGES.type), "tools": pa.array([tools])}
    arrays = [*batch.values(), pa.array([None], REJECT.type)]
    (found,) = stage.run(pa.RecordBatch.from_arrays(arrays, names=[*batch, REJECT.name])).to_pylist()
    return found


ONE = [USER, *step("add", a=1), ANSWER]
TWICE = [USER, *step("add", a=1), *step("add", number="2", a=1), ANSWER]
FAILED = [USER, *step("add", "Error: no", a=1), *step("look", number="2"), ANSWER]

SORRY = {"role": "assistant", "content": "Error: ValueError: days_late must not be negative"}


@pytest.mark.parametrize(
    ("messages", "table", "reason"),
    [
        (ONE, {}, None),
        (ONE, {"min_calls": 1, "max_calls": 1, "max_turns": 2, "max_unknown": 0, "must_call": ["add"]}, None),
        (ONE[:-1], {}, "no_answer"),
        (ONE[:-1], {"need_answer": False}, None),
        ([*ONE[:-1], {"role": "assistant", "content": " "}], {}, "no_answer"),
        ([USER, ANSWER], {"min_calls": 1}, "few_calls"),
        (TWICE, {"max_calls": 1}, "many_calls"),
        (TWICE, {"max_turns": 2}, "many_turns"),
        (TWICE, {"max_repeats": 0}, "repeated_calls"),
        (TWICE, {"max_repeats": 1}, None),
        ([USER, *step("add", a=1, b=2), *step("add", number="2", b=2, a=1), ANSWER], {"max_repeats": 0},
         "repeated_calls"),
        ([USER, *step("add", a=1), *step("look", number="2"), *step("add", number="3", a=1), ANSWER],
         {"max_repeats": 0}, None),
        ([USER, *step("fly"), ANSWER], {"max_unknown": 0}, "unknown_tool"),
        (FAILED, {"max_failed_share": 0.5}, None),
        (FAILED, {"max_failed_share": 0.4}, "failed_calls"),
        ([*FAILED[:-1], SORRY], {}, "error_answer"),
        ([*FAILED[:-1], SORRY], {"need_answer": False}, None),
        ([*FAILED[:-1], {"role": "assistant", "content": "no"}], {}, "error_answer"),
        ([USER, *step("add", SORRY["content"]), {**SORRY, "content": f"Result of add:\n{SORRY['content']}"}], {},
         "error_answer"),
        ([*FAILED[:-1], {"role": "assistant", "content": "no book of that id is here"}], {}, None),
        (FAILED, {"must_call": ["look", "add"]}, "missing_tool"),
        (FAILED, {"errors": ["Failure"], "max_failed_share": 0}, None),
        ([USER, ONE[1], ANSWER], {}, "malformed"),
        ([USER, ONE[2], ANSWER], {}, "malformed"),
        ([USER, *step("add"), *step("add"), ANSWER], {}, "malformed"),
        ([], {}, "malformed"),
    ],
)  # fmt: skip
def test_bounds(messages: list[Any], table: dict[str, Any], reason: str | None) -> None:
    assert row(*messages, **table)["reject"] == (reason and f"trajectory:{reason}")


def test_findings() -> None:
    found = row(USER, *step("add", a=1), *step("add", "Error: x", "2", a=1), *step("fly", number="3"), ANSWER)
    names = ("turns", "calls", "unknown", "repeats")
    assert [found[f"trajectory_{name}"] for name in names] == [4, 3, 1, 1]
    assert found["trajectory_failed_share"] == pytest.approx(1 / 3)
    assert row(*ONE, tools=None)["trajectory_unknown"] == row(*ONE, tools="{")["trajectory_unknown"] == 0


def test_other_messages_are_trajectories_without_calls() -> None:
    stage = Trajectory(TrajectorySpec())
    assert stage.refuses(PLAIN_MESSAGES) is None and stage.refuses(pa.field("messages", pa.string()))
    batch = pa.RecordBatch.from_arrays(
        [pa.array([[USER, ANSWER]], PLAIN_MESSAGES.type), pa.array([None], REJECT.type)], names=["messages", "reject"]
    )
    (found,) = stage.run(batch).to_pylist()
    assert found["reject"] is None and found["trajectory_calls"] == 0


PARTS = st.lists(st.sampled_from([USER, ANSWER, *step("add", a=1), *step("look", "Error: x", "2")]), max_size=6)


@given(PARTS)
def test_well_formed_means_that_calls_and_answers_are_pairs(messages: list[dict[str, Any]]) -> None:
    pending: list[str] = []
    seen: set[str] = set()
    is_right = bool(messages)
    for message in messages:
        if message["role"] == "tool":
            is_right = is_right and message["tool_call_id"] in pending
            pending = [each for each in pending if each != message["tool_call_id"]]
            continue
        made = [call["id"] for call in message.get("tool_calls", ())]
        is_right = is_right and not pending and not seen & set(made)
        pending, seen = pending + made, seen | set(made)
    is_malformed = row(*messages, need_answer=False)["reject"] == "trajectory:malformed"
    assert is_malformed == (not is_right or bool(pending))


def test_the_text_of_a_trajectory_shows_calls_and_results() -> None:
    text = trajectory_text(ONE)
    assert text == 'User: q\n\nAssistant: [calls add({"a": 1})]\n\nTool add: 1\n\nAssistant: a'
    assert trajectory_text(None) == trajectory_text([None]) == ""  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"min_calls": 3, "max_calls": 2}, "max_calls is below min_calls"),
        ({"must_call": ["a", "b"], "max_calls": 1}, "max_calls is below"),
        ({"max_failed_share": 1.5}, "must lie in 0..1"),
        ({"max_repeats": -1}, "must not be negative"),
        ({"errors": [""]}, "an empty word"),
    ],
)
def test_bad_settings_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(TrajectorySpec, table, "stages[0]")
