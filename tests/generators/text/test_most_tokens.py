"""What an ask can cost at most, for the forecast of a run: no method makes a call more than it says."""

import asyncio
import json

import pytest

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.contract import Ask, Session
from gristmill.generators.text.registry import KINDS
from tests.generators.text.script import Script, method_of, open_method
from tests.generators.text.test_every_method import TABLES

PYTHON = {"tools": [{"kind": "python"}], "calls": "json"}
# Tables, and answers under which the method goes its longest way.
ROWS = {
    "agent": ({**PYTHON, "max_turns": 2}, {"": {"tool": "python", "arguments": {"code": "1"}}}, 200),
    "tool_calls": (
        {**PYTHON, "samples": 2, "sampling": {"question": {"max_tokens": 50}}},
        {"question": "What is one?", "": {"tool": "python", "arguments": {"code": "1"}}},
        250,
    ),
    "code": (
        {"sampling": {"tests": {"max_tokens": 50}}},
        {"solution": "def f(): return 1", "": "assert f() == 1"},
        250,
    ),
    "math": ({"samples": 4}, {"": "Answer: 4"}, 500),
    "constitutional": ({"rounds": 3}, {"revision": ["a", "b", "c"], "": "d"}, 700),
    "preference": ({"responses": 3, "votes": 2}, {"judge": [{"better": 1}] * 5 + ["?"], "": ["a", "b", "c"]}, 1500),
    "self_instruct": (
        {},
        {
            "classify": {"classification": True},
            "labels": {"labels": ["warm", "cold"]},
            "input": {"input": "snow"},
            "": "Tell how warm the day is.",
        },
        400,
    ),
    "evol_instruct": (
        {"sampling": {"deepen": {"max_tokens": 170}, "equal": {"max_tokens": 9}}},
        {"equal": {"same": False}, "": "Name three red fruits."},
        279,
    ),
}


@pytest.mark.parametrize("kind", ROWS)
def test_the_longest_way_is_what_most_tokens_counts(kind):
    table, script, most = ROWS[kind]
    method = open_method(kind, json.dumps(table))
    engine = Script(script, method=method)
    assert method.most_tokens(100) == most
    spent = []
    for seed in range(40):
        session = Session(engine, seed, {"max_tokens": 100})
        fields = {"text": "x", "topic": "x", "instruction": "Name a red fruit."}
        try:
            asyncio.run(method.run(Ask("a" * 32, seed, fields), session))
        except AskRefused as refused:
            assert refused.reason in ("tie", "max_turns")
        spent.append(sum(call["max_tokens"] for call in engine.sampling[-session.calls :]))
    assert max(spent) == most


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_of_one_call_costs_what_a_call_costs(kind):
    method = method_of(kind, TABLES.get(kind, {}))
    if not method.keeps_turns:
        assert method.most_tokens(77) == 77
    else:
        assert method.most_tokens(77) is None or method.most_tokens(77) >= 77
