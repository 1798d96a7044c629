"""Structures are checked before an engine starts, each in one line."""

from typing import Any

import pytest

from gristmill.engines.contract import FREE_TEXT, AnswerForm
from gristmill.engines.structures import check_structure
from gristmill.generators.canned.generator import CannedSpec
from gristmill.generators.teacher import TeacherSpec
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.judging.spec import JudgeSpec

MODEL = {"model": "package:smollm2"}
GOOD: list[dict[str, Any]] = [
    {"json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    {"choice": ("yes", "no")},
    {"regex": r"\p{Lu}[a-z]{2,8}|[0-9]+"},
    {"grammar": 'root ::= "a" | "b" root'},
    {"grammar": 'start: "a" | NAME\nNAME: /[a-z]+/'},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"regex": "(a"}, "generator.regex: unclosed group"),
    ({"regex": "(?=a)b"}, "generator.regex: look-around"),
    ({"grammar": "root ::= x"}, "generator.grammar: .*'x' not found"),
    ({"grammar": "start: x"}, "generator.grammar: .*unknown name"),
    ({"json_schema": {"type": "nothing"}}, "generator.json_schema: "),
]


@pytest.mark.parametrize("table", GOOD, ids=str)
def test_a_structure_that_the_backend_takes_passes(table: dict[str, Any]) -> None:
    check_structure(AnswerForm(**table))
    check_structure(FREE_TEXT)
    build(TeacherSpec, {**MODEL, **table}, "generator")


@pytest.mark.parametrize("table,message", BAD, ids=str)
def test_a_structure_that_the_backend_refuses_is_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build(TeacherSpec, {**MODEL, **table}, "generator").check_form(AnswerForm(**table))
    assert "\n" not in str(error.value)
    other = build(TeacherSpec, {**MODEL, "engine": {"structured_outputs_config": {"backend": "xgrammar"}}}, "generator")
    other.check_form(AnswerForm(**table))  # its grammars may be others: the engine decides when it opens


@pytest.mark.parametrize(
    "table,message",
    [
        ({"choice": ["a", "a"]}, "choice: its texts must differ"),
        ({"choice": ["a", ""]}, "none may be empty"),
        ({"regex": ""}, "regex is empty"),
        ({"grammar": ""}, "grammar is empty"),
        ({"regex": "a", "choice": ["a"]}, "choice and regex: an answer has one structure"),
    ],
    ids=str,
)
@pytest.mark.parametrize("spec,more", [(TeacherSpec, MODEL), (CannedSpec, {})])
def test_a_structure_that_no_answer_can_have_is_refused(
    spec: type, more: dict[str, Any], table: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(spec, {**more, **table}, "generator")


def test_the_canned_engine_needs_texts_for_a_pattern() -> None:
    for key, value in (("regex", "[0-9]"), ("grammar", 'root ::= "1"')):
        with pytest.raises(UserError, match=f"{key} needs a model, or answers"):
            build(CannedSpec, {key: value, "answers": [{"when": "x", "say": ["1"]}]}, "generator")
        build(CannedSpec, {key: value, "answers": [{"when": "", "say": ["1"]}]}, "generator")


def test_reasoning_needs_a_parser_by_its_name() -> None:
    with pytest.raises(UserError, match="reasoning needs reasoning_parser"):
        build(TeacherSpec, {**MODEL, "reasoning": True}, "generator")
    with pytest.raises(UserError, match="write reasoning_parser beside engine"):
        build(TeacherSpec, {**MODEL, "engine": {"reasoning_parser": "qwen3"}}, "generator")
    with pytest.raises(UserError, match=r"vLLM has no 'qwen4' \(did you mean 'qwen3'"):
        build(TeacherSpec, {**MODEL, "reasoning_parser": "qwen4"}, "generator").check()
    assert build(TeacherSpec, {**MODEL, "reasoning_parser": "qwen3"}, "generator").form.reasoning
    assert build(JudgeSpec, {**MODEL, "reasoning_parser": "qwen3"}, "stage").reasoning_parser == "qwen3"
