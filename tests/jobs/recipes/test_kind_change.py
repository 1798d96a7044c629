"""`--set TABLE.kind=...`: keys of the kind before are left out with a note; everything else stays an error."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from gristmill.jobs.flow.spec import load_flow
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
