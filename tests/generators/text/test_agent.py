"""The agent: turns and calls on scripted engines, and what holds for every trajectory."""

import asyncio
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.contract import Reply, ToolCall
from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.generators.teacher import Teacher, TeacherSpec
from gristmill.generators.text.agent.method import Agent
from gristmill.generators.text.contract import Ask, Session
from gristmill.records.errors import UserError
from gristmill.records.pins import Pins, active
from gristmill.records.spec import build
from gristmill.stages.trajectory.checks import tally
from tests.conftest import ROOT
from tests.generators.text.script import OnScript, Script, asks, method_of, told
from tests.profiles import scaled

LIBRARY = {"kind": "file", "file": str(ROOT / "recipes" / "tools" / "library.py")}
TABLE: dict[str, Any] = {"tools": [LIBRARY, {"kind": "python"}], "max_turns": 4}
FIELDS = {"text": "How long is a loan?"}


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("x", name, json.dumps(arguments))


def calls(*made: ToolCall, text: str = "", reasoning: str | None = None) -> Reply:
    return Reply(text, "tool_calls", 10, 5, tool_calls=made, reasoning=reasoning)


def run(*script: Any, **table: Any) -> Any:
    """(payload or reason, engine, session) of one ask."""
    return told("agent", {**TABLE, **table}, FIELDS, list(script))


def test_a_trajectory_keeps_every_turn() -> None:
    fee, day = call("late_fee", days_late=5), call("python", code="d = 21\nprint(d)")
    row, engine, session = run(
        calls(fee, day, text="I look.", reasoning="Fees first."), calls(call("python", code="d + 1")), "22 days."
    )
    roles = [message["role"] for message in row["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    first = row["messages"][2]
    assert (first["content"], first["reasoning_content"]) == ("I look.", "Fees first.")
    assert [c["function"] for c in first["tool_calls"]] == [
        {"name": c.name, "arguments": c.arguments} for c in (fee, day)
    ]
    assert [message["content"] for message in row["messages"] if message["role"] == "tool"] == ["1.00", "21", "22"]
    assert (row["text"], row["num_turns"], row["num_calls"], row["num_failed_calls"]) == ("22 days.", 3, 3, 0)
    names = [tool["function"]["name"] for tool in json.loads(row["tools"])]
    assert names == [tool["function"]["name"] for tool in engine.tools[0]] and "python" in names
    assert session.finish == "stop", "the row ends as its last turn does"
    assert engine.asked[2][-1]["content"] == "22" and session.turns[0]["text"].startswith("I look.\nlate_fee(")


def test_a_wrong_call_is_answered_by_its_error() -> None:
    wrong = calls(
        call("lend"), ToolCall("", "late_fee", "{"), call("late_fee", days="5"), call("due_date", borrowed_on="x")
    )
    row, engine, _ = run(wrong, "Sorry.")
    messages = [message for message in engine.asked[1] if message["role"] == "tool"]
    assert [message["content"].split(";")[0].split(":")[0] for message in messages] == ["Error"] * 4
    assert [message["name"] for message in messages] == ["lend", "late_fee", "late_fee", "due_date"]
    assert (row["num_calls"], row["num_failed_calls"]) == (4, 4)
    arguments = [c["function"]["arguments"] for c in row["messages"][2]["tool_calls"]]
    assert all(isinstance(json.loads(text), dict) for text in arguments) and json.loads(arguments[1]) == {
        "unreadable": "{"
    }


@pytest.mark.parametrize(
    ("script", "table", "reason"),
    [
        ([calls(call("late_fee", days_late=1))], {}, "max_turns"),
        ([calls(call("late_fee", days_late=1)), AskRefused("context_length")], {}, "context_full"),
        ([AskRefused("context_length")], {}, "context_length"),
        ([Reply("", "length", 1, 1, tool_calls=(call("python", code="1"),))], {}, "cut_turn"),
        ([""], {}, "empty_answer"),
        (["At once."], {"min_calls": 1}, "few_calls"),
        ([{"tool": "late_fee"}, "{"], {"calls": "json"}, "unreadable_turn"),
        ([Reply('{"answer": "cut', "length", 1, 1)], {"calls": "json"}, "cut_turn"),
        ([{"neither": 1}], {"calls": "json"}, "unreadable_turn"),
    ],
)
def test_what_makes_no_row_has_a_name(script: list[Any], table: dict[str, Any], reason: str) -> None:
    refused, engine, session = run(*script, **table)
    assert refused == reason
    assert len(engine.asked) <= TABLE["max_turns"] and len(session.turns) == len(engine.asked)


def test_calls_as_json_make_the_same_row() -> None:
    native = [calls(call("late_fee", days_late=5)), calls(call("lend", book="B1")), "1.00"]
    as_json = [
        {"tool": "late_fee", "arguments": {"days_late": 5}},
        {"tool": "lend", "arguments": {"book": "B1"}},
        {"answer": "1.00"},
    ]
    row, other = run(*native), run(*as_json, calls="json", min_calls=1)
    assert row[0] == other[0]
    prompts, schemas = other[1].asked, other[1].schemas
    assert "late_fee" in prompts[0][0]["content"] and not any(other[1].tools)
    assert {"required": ["answer"]}.items() <= schemas[1]["anyOf"][-1].items()
    assert all("tool" in shape["required"] for shape in schemas[0]["anyOf"]), "the first call is forced by min_calls"
    assert [m["role"] for m in prompts[2]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompts[2][3]["content"] == "Result of late_fee:\n1.00" and "Error" in prompts[2][5]["content"]


@pytest.mark.parametrize("way", ["native", "json"])
def test_the_last_turn_can_be_held_to_the_answer(way: str) -> None:
    again = (
        calls(call("late_fee", days_late=1)) if way == "native" else {"tool": "late_fee", "arguments": {"days_late": 1}}
    )
    answer = "Twenty cents." if way == "native" else {"answer": "Twenty cents."}
    row, engine, _ = run(again, again, answer, max_turns=3, must_answer=True, calls=way)
    assert row["text"] == "Twenty cents." and row["num_calls"] == 2
    if way == "native":
        assert [bool(tools) for tools in engine.tools] == [True, True, False]
    else:
        assert engine.schemas[2]["required"] == ["answer"] and "anyOf" in engine.schemas[1]
        assert engine.asked[2][0] == engine.asked[0][0], "the engine keeps what it has read"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    agent: Agent = method_of("agent", {**TABLE, "max_turns": 5})
    agent.open()
    yield agent
    agent.close()


ARGUMENTS = st.sampled_from(
    ['{"days_late": 3}', '{"days_late": "3"}', '{"code": "1 / 0"}', '{"code": "x = 2"}', "{", "[]", ""]
)
NAMES = st.sampled_from(["late_fee", "python", "lend", ""]) | st.text(max_size=5)
TURNS = st.builds(
    lambda made, text: Reply(text, "tool_calls" if made else "stop", 3, 2, tool_calls=tuple(made)),
    st.lists(st.builds(ToolCall, st.text(max_size=3), NAMES, ARGUMENTS | st.text(max_size=8)), max_size=3),
    st.text(max_size=8),
)


@settings(max_examples=scaled(60))
@given(script=st.lists(TURNS, min_size=1, max_size=6), seed=st.integers(0, 2**62))
def test_every_call_has_one_answer_whatever_the_model_says(agent: Agent, script: list[Reply], seed: int) -> None:
    session = Session(Script(script), seed, {})
    try:
        row = asyncio.run(agent.run(Ask("a" * 32, seed, FIELDS), session))
    except AskRefused as refused:
        assert refused.reason in ("max_turns", "empty_answer")
        return
    counts = tally(row["messages"], None, ("Error:",))
    assert counts.problem is None and counts.has_answer
    assert (counts.calls, counts.turns, counts.failed) == (row["num_calls"], row["num_turns"], row["num_failed_calls"])
    for at, message in enumerate(row["messages"]):
        ids = [each["id"] for each in message.get("tool_calls", ())]
        assert [each.get("tool_call_id") for each in row["messages"][at + 1 :]][: len(ids)] == ids, "in their order"
        assert {"role", "content"} <= set(message) and isinstance(message["content"], str)
        for each in message.get("tool_calls", ()):
            assert each["type"] == "function" and each["function"]["name"] and len(each["id"]) == 9
            assert isinstance(json.loads(each["function"]["arguments"]), dict)


class Mortal(Script):
    """Fails at call `life`, counted from 0."""

    def __init__(self, script: list[Any], life: int) -> None:
        super().__init__(script)
        self.life = life

    async def chat(self, *arguments: Any) -> Reply:
        if len(self.asked) == self.life:
            raise EngineDead("lost")
        return await super().chat(*arguments)


@settings(max_examples=scaled(15))
@given(codes=st.lists(st.sampled_from(["x = 1", "x += 1\nx", "import uuid\nuuid.uuid4()"]), min_size=1, max_size=3))
def test_an_engine_that_is_lost_at_any_turn_changes_no_row(agent: Agent, codes: list[str]) -> None:
    script = [*(calls(call("python", code=code), call("lend")) for code in codes), "Done."]

    def row(life: int) -> dict[str, Any]:
        return asyncio.run(agent.run(Ask("a" * 32, 5, FIELDS), Session(Mortal(script, life), 5, {})))

    whole = row(-1)
    for life in range(len(script)):
        with pytest.raises(EngineDead):
            row(life)
        assert row(-1) == whole


def test_rows_do_not_depend_on_what_runs_beside_them() -> None:
    fees = [calls(call("late_fee", days_late=n), call("python", code=f"x = {n}\nx")) for n in range(3)]
    script = {"tool|Result|[0-9][.]": ["Done.", calls(call("python", code="x * 2"))], "loan": [*fees, "At once."]}
    generator = OnScript("agent", TABLE, script)
    generator.open()
    batch = asks([{"text": f"Loan {n}: how long is a loan?"} for n in range(12)])
    whole = asyncio.run(generator.make(batch))
    alone = [asyncio.run(generator.make(batch.slice(n, 1))) for n in range(12)]
    generator.close()
    assert [each.to_pylist()[0] for each in alone] == whole.to_pylist()
    living = [row for row in whole.to_pylist() if row["reject"] is None]
    assert living and len({row["num_calls"] for row in living}) > 1


@pytest.mark.parametrize("keys", [{}, {"tool_parser": "hermes", "chat": False}])
def test_native_calls_need_an_engine_that_reads_them(keys: dict[str, Any]) -> None:
    for calls_by in ("native", "json"):
        spec = build(TeacherSpec, {"model": "package:smollm2", **keys}, "generator")
        teacher = Teacher(spec, method_of("agent", {**TABLE, "calls": calls_by}))
        if calls_by == "native":
            with pytest.raises(UserError, match="set generator.tool_parser"):
                teacher.check()
        else:
            teacher.check()


def test_tools_in_files_are_identity_by_content(tmp_path: Path) -> None:
    source = (ROOT / "recipes" / "tools" / "library.py").read_text()
    identities = []
    for name, text in (("a.py", source), ("b.py", source), ("c.py", source + "\n")):
        (tmp_path / name).write_text(text)
        identities.append(method_of("agent", {"tools": [{"kind": "file", "file": str(tmp_path / name)}]}).identity())
    assert identities[0] == identities[1] != identities[2]
    assert method_of("agent", {**TABLE, "calls": "json"}).identity() != method_of("agent", TABLE).identity()
    assert method_of("agent", {**TABLE, "workers": 7}).identity() == method_of("agent", TABLE).identity()


def test_a_corpus_that_changes_under_the_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"text": "A loan is 21 days long."}\n')
    pins = Pins()
    with pins.active():
        agent = method_of("agent", {"tools": [{"kind": "corpus", "path": str(tmp_path / "corpus.jsonl")}]})
    agent = pickle.loads(pickle.dumps(agent))
    with active(pins):
        agent.open()
    row = asyncio.run(
        agent.run(Ask("a" * 32, 1, FIELDS), Session(Script([calls(call("search", query="loan")), "21"]), 1, {}))
    )
    agent.close()
    assert "A loan is 21 days long." in row["messages"][3]["content"]
    (tmp_path / "corpus.jsonl").write_text('{"text": "A loan is 14 days long."}\n')
    fresh = pickle.loads(pickle.dumps(agent))
    with pytest.raises(UserError, match="corpus.jsonl changed since this run began"), active(pins):
        fresh.open()


def test_what_answers_otherwise_voids_the_promise() -> None:
    assert method_of("agent", TABLE).is_repeatable
    for tool in ({**LIBRARY, "deterministic": False}, {"kind": "mcp", "command": ["true"]}):
        assert not method_of("agent", {"tools": [tool]}).is_repeatable


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"tools": []}, "tools needs at least one table"),
        ({**TABLE, "max_turns": 0}, "must be at least 1"),
        ({**TABLE, "min_calls": 1, "max_turns": 1}, "min_calls needs max_turns of at least 2"),
        ({**TABLE, "max_turns": 1, "must_answer": True}, "must_answer needs max_turns"),
        ({**TABLE, "calls": "xml"}, "is not one of 'native', 'json'"),
        ({"tools": [{**LIBRARY, "kind": "function"}]}, "is not one of"),
    ],
)
def test_bad_settings_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        method_of("agent", table)
