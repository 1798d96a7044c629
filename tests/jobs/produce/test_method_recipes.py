"""The shipped recipes of the methods, as they are but for a canned engine that knows what to say: every stage sees rows
it can read, and kept rows are what the recipe is for."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
from gristmill.records.spec import literals
from gristmill.records.stores.opening import open_store
from gristmill.stages.contract import Stage
from tests.conftest import ROOT
from tests.generators.text.script import mark

RECIPES = """agent annotate backtranslate code code-given constitutional cross-document dialogue distill evol-instruct
    exercise long-documents magpie math math-answers megadoc nemotron paraphrase personas preference self-instruct
    tool-calls translate""".split()
NUM_ROWS = 24
OPENED: dict[str, Stage] = {}  # several recipes have the same stage; opening one takes seconds
# What the engine says in these calls, or to a prompt that holds these words; to any other, English, or a value of the
# schema asked for.
SAYS: dict[str, dict[str, list[str]]] = {
    "code": {
        "solution": ["```python\ndef f(n):\n    return n + 1\n```", "def f(n): return n", "I do not know."],
        "tests": ["```\nassert f(1) == 2\nassert f(-1) == 0\n```", "assert f(0) == 1"],
    },
    "code-given": {"add(a, b)": ["def add(a, b):\n    return a + b"], "solution": ["def square(n): return n ** 2"]},
    "math": {"solution": ["We add them.\nAnswer: 5", "So it is. The answer is 5.0.", "Answer: 6", "Who knows?"]},
    "self-instruct": {"task": ["Explain why bread rises in a warm kitchen.", "Describe what the picture shows."]},
    "agent": {
        "Result of": ['{"answer": "It is 1.00."}', '{"tool": "late_fee", "arguments": {"days_late": 5}}'],
        "in every turn": [
            '{"tool": "late_fee", "arguments": {"days_late": 5}}',
            '{"tool": "late_fee", "arguments": {"days": 5}}',
            '{"tool": "python", "arguments": {"code": "print(5 * 20)"}}',
        ],
    },
    "tool-calls": {
        "question": ["What do I pay for five days?", "When is my book due?", "I am five days late, what now?"],
        "with the keys": [
            '{"tool": "late_fee", "arguments": {"days_late": 5}}',
            '{"tool": "calculate", "arguments": {"expression": "5 * 20"}}',
            '{"tool": "late_fee", "arguments": {"days_late": -5}}',
        ],
    },
    "math-answers": {"solution": ["We see.\nAnswer: 12", "Answer: 5", "Answer: 7 seats."]},
}
# Reasons that must come up, and what a kept row must have; together they show that no stage is idle.
# A canned rewriting of a help topic, and one that is unfaithful.
TOPIC = "Python expressions, operators, functions, classes, statements and modules; names, objects, values and types. "
REWRITINGS = [*(TOPIC * num for num in range(2, 8)), "The tide rises twice a day because of the moon."]
SAYS |= {name: {"ocument": REWRITINGS} for name in ("long-documents", "megadoc")}
SHOWS: dict[str, tuple[set[str], Callable[[dict[str, Any]], Any]]] = {
    "code": (
        {"execute:failed", "generator:no_tests"},
        lambda row: row["execute_verdict"] == "passed" and "assert" in row["tests"],
    ),
    "code-given": ({"execute:error"}, lambda row: row["execute_verdict"] == "passed" and row["tests"]),
    "math": ({"consistency:share"}, lambda row: len(row["answers"]) == 4 and row["consistency_share"] >= 0.5),
    "math-answers": ({"answer:wrong"}, lambda row: row["answer_verdict"] == "right" and row["reference"]),
    "agent": (
        {"trajectory:failed_calls"},
        lambda row: row["messages"][-1]["content"] == row["text"] and row["num_calls"] > row["num_failed_calls"],
    ),
    "tool-calls": (
        {"consistency:share"},
        lambda row: row["execute_calls_verdict"] == "passed" and row["results"].count(row["result"]) >= 2,
    ),
    "constitutional": (
        set(),
        lambda row: len(row["principles"]) == 2 and row["chosen"] != row["rejected"] == row["initial"],
    ),
    "preference": ({"generator:tie"}, lambda row: 0 < row["margin"] <= 1 and row["chosen"] != row["rejected"]),
    "self-instruct": ({"generator:keyword"}, lambda row: row["instruction"] and row["output"]),
    "cross-document": (set(), lambda row: row["other_source_id"] not in (None, row["source_id"])),
    "long-documents": (
        {"fidelity:similarity"},
        lambda row: len(row["parts"]) == len(row["turns"]) and row["fidelity_similarity"] == min(row["fidelity_parts"]),
    ),
    "megadoc": ({"fidelity:similarity"}, lambda row: 2 <= len(row["styles"]) == len(row["fidelity_parts"]) <= 4),
    "evol-instruct": (set(), lambda row: row["depth"] == 1 and row["parent"] != row["instruction"]),
}


def opened(stage: Stage) -> Stage:
    key = json.dumps([stage.kind, stage.name, literals(stage.spec)])
    if key not in OPENED:
        stage.check()
        stage.open()
        OPENED[key] = stage
    return OPENED[key]


def generator_of(name: str, method: Any) -> dict[str, Any]:
    wording = getattr(method.spec, "wording", {})
    says = SAYS.get(name, {}).items()
    answers = [{"when": mark(wording[key]) if key in wording else key, "say": say} for key, say in says]
    return {"kind": "canned", "num_words": 60, "bad": 0.1, "answers": answers}


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_runs_through_its_stages(name: str, tmp_path: Path) -> None:
    recipe = load(str(ROOT / "recipes" / f"{name}.toml"))
    shipped = compile_recipe(recipe)
    assert recipe.generator["model"] == "package:smollm2" and recipe.description
    assert shipped.plan.num_asks is not None and shipped.plan.num_asks <= 256, "a minute or two of two slow cores"
    assert shipped.method and shipped.method.most_tokens(0) is not None
    stages = tuple({**s, "min_similarity": 0.2} if s["kind"] == "fidelity" else s for s in recipe.stages)
    mill = compile_recipe(
        replace(recipe, generator=generator_of(name, shipped.method), lot_size=NUM_ROWS, stages=stages)
    )
    assert mill.schema.equals(shipped.schema)
    mill.generator.check()
    mill.generator.open()
    batch = asyncio.run(mill.generator.make(asks(mill.plan, mill.ask_source(open_store(str(tmp_path))), 0)))
    for stage in mill.stages:
        batch = opened(stage).run(batch)
    rows = batch.to_pylist()
    kept = [row for row in rows if row["reject"] is None]
    reasons, good = SHOWS.get(name, (set(), bool))
    assert len(rows) == NUM_ROWS and kept and reasons <= {row["reject"] for row in rows}
    assert all(row["text"] and row["tokens_out"] > 0 and good(row) for row in kept)
    assert not shipped.method.keeps_turns or all(row["turns"] for row in kept)
    assert set(batch.schema.names) - {"ask"} == set(mill.schema.names)


def test_the_scripted_agent_shows_every_turn_and_its_checks(tmp_path: Path) -> None:
    mill = compile_recipe(load(str(ROOT / "recipes" / "agent-scripted.toml")))
    mill.generator.open()
    batch = asyncio.run(mill.generator.make(asks(mill.plan, mill.ask_source(open_store(str(tmp_path))), 0)))
    mill.generator.close()
    for stage in mill.stages:
        batch = opened(stage).run(batch)
    rows = batch.to_pylist()
    kept = [row for row in rows if row["reject"] is None]
    assert {row["reject"] for row in rows} == {None, "trajectory:few_calls"}
    assert {row["answer_verdict"] for row in kept} == {"right"} and {row["num_failed_calls"] for row in kept} == {0, 1}
    assert max(row["num_calls"] for row in kept) == 3 and mill.is_repeatable


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_says_what_it_makes_after_which_paper_at_what_cost(name: str) -> None:
    lines = (ROOT / "recipes" / f"{name}.toml").read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["# Makes", "# Paper", "# Cost"]
    assert "call" in lines[2]
