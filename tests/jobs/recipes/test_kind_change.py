"""`--set TABLE.kind=...`: keys of the kind before are left out with a note; everything else stays an error."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from gristmill.jobs.flow.spec import load_flow
from gristmill.jobs.preview.run import finished_rows, first_asks, sample_plan
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.errors import UserError

TEACHER = {"kind": "teacher", "model": "/no/such/model", "threads": 2, "sampling": {"max_tokens": 5}}
JUDGE = {"kind": "judge", "model": "/no/such/model", "min_score": 3, "engine": {"max_model_len": 64}}


def tables(**changes: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "generator": TEACHER,
        "source": {"items": ["a"]},
        "stages": [{"kind": "finish"}, JUDGE],
        **changes,
    }


def changed(
    settings: Sequence[str], caplog: pytest.LogCaptureFixture, **changes: Any
) -> tuple[dict[str, Any], list[str]]:
    """The tables with the settings applied, and the lines that the log has of it."""
    caplog.set_level(logging.INFO, "gristmill")
    logging.getLogger("gristmill").propagate = True
    caplog.clear()
    table = load_table(tables(**changes), settings)
    return table, [record.getMessage() for record in caplog.records]


def test_keys_of_the_other_kind_are_ignored_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    table, lines = changed(["generator.kind=canned", "generator.num_words=9"], caplog)
    assert table["generator"] == {"kind": "canned", "num_words": 9}
    assert lines[0] == "generator.kind = canned: keys of 'teacher' are ignored: model, threads, sampling"
    assert "stage 'judge' still needs its model; --set stages.1.kind=canned_judge" in lines[1] and len(lines) == 2


def test_keys_that_both_kinds_have_stay_and_so_does_the_file(caplog: pytest.LogCaptureFixture) -> None:
    table, lines = changed(["generator.kind=canned"], caplog, generator={**TEACHER, "num_cpus": 3})
    assert table["generator"] == {"kind": "canned", "num_cpus": 3}
    assert "num_cpus" not in lines[0] and TEACHER["model"] == "/no/such/model"


def test_a_judge_without_a_model_keeps_the_name_of_its_columns(caplog: pytest.LogCaptureFixture) -> None:
    table, lines = changed(["generator.kind=canned", "stages.1.kind=canned_judge"], caplog)
    assert table["stages"][1] == {"kind": "canned_judge", "min_score": 3, "name": "judge"}
    assert lines[1] == "stages[1].kind = canned_judge: keys of 'judge' are ignored: model, engine" and len(lines) == 2
    compiled = compile_recipe(load(tables(), ["generator.kind=canned", "stages.1.kind=canned_judge"]))
    assert "judge_score" in compiled.schema.names and not compiled.pools


def test_a_method_goes_with_the_generator_that_takes_it(caplog: pytest.LogCaptureFixture) -> None:
    table, lines = changed(["generator.kind=passthrough"], caplog, method={"kind": "prompt"})
    assert "method" not in table and "generator.kind = passthrough: [method] is ignored" in lines


MISSPELT, FOREIGN = {"generator": {**TEACHER, "modle": "x"}}, {"generator": {**TEACHER, "num_words": 5}}
OLD = {"stages": [{"kind": "finish", "min_scor": 1}]}


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (["generator.kind=canned"], MISSPELT, r"generator \(teacher\): unknown key 'modle'.*did you mean 'model'"),
        (["generator.kind=canned"], FOREIGN, r"generator \(teacher\): unknown key 'num_words'"),
        (["generator.kind=canned", "generator.num_wrods=5"], {}, r"unknown key 'num_wrods' \(did you mean 'num_words'"),
        (["generator.kind=caned"], {}, r"unknown kind 'caned' \(did you mean 'canned'\?\)"),
        (["generator.num_words=5"], {}, "unknown key 'num_words'"),
        ([], {"generator": {**TEACHER, "kind": "canned"}}, "unknown key 'model'"),
        (["stages.0.kind=language"], OLD, r"stages\[0\] \(finish\): unknown key 'min_scor'"),
        (["stages.0.kind=languag"], {}, "unknown kind 'languag'"),
    ],
)
def test_any_other_key_stays_an_error(settings: list[str], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compile_recipe(load(tables(**changes), settings))


def test_a_kind_that_the_file_misspells_is_mended(caplog: pytest.LogCaptureFixture) -> None:
    table, lines = changed(["generator.kind=teacher"], caplog, generator={**TEACHER, "kind": "techer"})
    assert table["generator"] == TEACHER and not lines


def test_the_changes_of_a_flow_do_the_same() -> None:
    step = {"name": "write", "verb": "produce", "recipe": tables(), "set": {"generator": {"kind": "canned"}}}
    _, steps = load_flow({"name": "f", "steps": [step]})
    assert (steps["write"] or {})["generator"] == {"kind": "canned"}


ENDPOINT = {
    **{"kind": "endpoint", "model": "org/big", "base_url": "http://localhost:1/v1", "api_key_env": "KEY"},
    **{"price_in": 1.0, "price_out": 4.0, "extra_body": {"reasoning_effort": "low"}, "requests_per_minute": 9},
}
PAID_JUDGE = {"kind": "judge", "endpoint": {k: v for k, v in ENDPOINT.items() if k != "kind"}}
COST = {"cost": 2.0, "asks": 8}
CYCLE = {"items": [{"text": "a"}], "cycle": True}
QUESTION = {"kind": "prompt", "template": "{question}"}
TWO = [{**TEACHER, "share": 2.0}, {**ENDPOINT, "when": "a"}]
COST_NOTE = "limits.cost is ignored: nothing has a price without the model"
# changes to the tables -> columns that the rows then have, and lines of the log
TRIALS: dict[str, tuple[dict[str, Any], set[str], list[str]]] = {
    "regex": ({"generator": {**TEACHER, "regex": "[0-9]+"}}, set(), []),
    "grammar": ({"generator": {**ENDPOINT, "grammar": 'root ::= "a"'}}, set(), []),
    "choice": ({"generator": {**TEACHER, "choice": ["yes", "no"]}}, set(), []),
    "schema": ({"generator": {**TEACHER, "json_schema": {"type": "object", "properties": {}}}}, set(), []),
    "logprobs": ({"generator": {**TEACHER, "logprobs": True}}, {"logprob_mean"}, []),
    "parser": ({"generator": {**TEACHER, "reasoning_parser": "qwen3"}}, {"reasoning", "tokens_reasoning"}, []),
    "both": ({"generator": {**TEACHER, "reasoning_parser": "qwen3", "reasoning": True}}, {"reasoning"}, []),
    "reasoning": ({"generator": {**ENDPOINT, "reasoning": True}}, {"reasoning"}, []),
    "tools": ({"generator": {**TEACHER, "tool_parser": "hermes"}}, set(), []),
    "cost": ({"generator": ENDPOINT, "limits": COST}, set(), [COST_NOTE]),
    "cost alone": (
        {"generator": ENDPOINT, "limits": {"cost": 2.0}, "source": CYCLE},
        set(),
        [COST_NOTE, "limits.asks = 256: no other limit would end a run without the model"],
    ),
    "time alone": (
        {"limits": {"device_s": 60}, "source": {"kind": "tasks"}, "method": QUESTION},
        set(),
        ["limits.asks = 256: no other limit would end a run without the model"],
    ),
    "several": (
        {"generator": None, "generators": [*TWO, {**ENDPOINT, "name": "x", "reasoning": True}],
         "division": {"column": "text"}, "limits": COST, "cluster": {"pools": {"model": {"replicas": 2}, "judge": {}}}},
        {"generator", "reasoning"},
        [COST_NOTE, "cluster.pools.model is ignored: canned answers need no engine"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRIALS)
def test_any_key_of_a_recipe_of_texts_can_be_tried_without_a_model(name: str, caplog: pytest.LogCaptureFixture) -> None:
    changes, columns, notes = TRIALS[name]
    recipe = {"source": {"items": [{"text": "a"}, {"text": "b"}]}, "stages": [PAID_JUDGE], "cluster": {}, **changes}
    whole = {key: value for key, value in tables(**recipe).items() if value is not None}
    settings = ["generator.kind=canned", "stages.0.kind=canned_judge", "generator.num_words=9"]
    caplog.set_level(logging.INFO, "gristmill")
    logging.getLogger("gristmill").propagate = True
    compiled = compile_recipe(load(whole, settings))
    compiled.check()
    assert not compiled.paid_parts and not compiled.remote_pools and compiled.recipe.limits.cost is None
    assert columns | {"judge_score"} <= set(compiled.schema.names)
    lines = [record.getMessage() for record in caplog.records]
    assert set(notes) == {line for line in lines if line.startswith(("limits", "cluster"))}
    for line in lines:
        assert line.count("\n") == 0
    plan = sample_plan(compiled, 4)
    rows = finished_rows(compiled, plan, first_asks(compiled, plan), lambda *_: None)
    assert rows.num_rows == min(4, plan.num_asks or 4) and rows.column("text").null_count == 0


@pytest.mark.parametrize("cluster", [{"price_per_device_hour": 2.0}, {}])
def test_a_limit_on_the_cost_stays_where_something_has_a_price(cluster: dict[str, Any]) -> None:
    stages = [] if cluster else [PAID_JUDGE]
    recipe = load(tables(stages=stages, limits=COST, cluster=cluster), ["generator.kind=canned"])
    assert recipe.limits.cost == 2.0


def test_a_structure_that_canned_answers_match_stays() -> None:
    settings = ["generator.kind=canned", 'generator.answers=[{ when = "", say = ["12"] }]']
    table = load_table(tables(generator={**TEACHER, "regex": "[0-9]+"}), settings)
    assert table["generator"] == {"kind": "canned", "regex": "[0-9]+", "answers": [{"when": "", "say": ["12"]}]}
