"""The methods `self_instruct` and `evol_instruct`: tasks made after tasks, and what is wrong with some of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.evol_instruct import OPERATIONS, EvolInstructSpec, copies, draw_operation, response_fault
from gristmill.generators.text.self_instruct import SelfInstructSpec
from gristmill.generators.text.task_filters import instance_fault, task_fault, task_of
from gristmill.records.errors import UserError
from tests.generators.text.script import made, method_of, refusal, told

SEEDS = [
    {"instruction": "Name a fruit that is red.", "input": "", "output": "A cherry.", "is_classification": False},
    {"instruction": "Is the mood good or bad?", "input": "I won!", "output": "good", "is_classification": True},
    {"instruction": "Add up the numbers.", "input": "2 and 3", "output": "5"},
]
ROW = {**SEEDS[0], "examples": SEEDS}
NEW = "Tell which season comes before another."
SELF = {
    "task": NEW,
    "classify": {"classification": False},
    "instance": {"input": "winter", "output": "autumn"},
    "labels": {"labels": ["warm", "cold", "warm", " "]},
    "input": {"input": "snow falls"},
}
OF_CLASS = {**SELF, "classify": {"classification": True}}
EVOLVE = "|".join(OPERATIONS)
DEEPER = {"operations": {"deepen": 1.0}}
EVOL = {
    EVOLVE: "Name three red fruits and where they grow.",
    "equal": {"same": False},
    "": "Cherry, apple and raspberry grow in gardens.",
}


def test_a_task_is_made_after_examples_and_its_input_first():
    row, engine, session = told("self_instruct", {}, ROW, SELF)
    assert row["instruction"] == NEW and row["is_classification"] is False
    assert (row["input"], row["output"], row["text"]) == ("winter", "autumn", f"{NEW}\n\nwinter\n\nautumn")
    assert [turn["turn"] for turn in session.turns] == ["task", "classify", "instance"]
    task, classify, instance = engine.asked
    assert "1. Name a fruit that is red.\n2. Is the mood good or bad?\n3. Add up" in task
    assert '{"classification": true}' in classify and '{"output"' not in classify
    assert '"output": "A cherry."' in instance and '"output": "5"' in instance and "mood" not in instance


def test_a_classification_task_draws_its_label_first():
    rows = [told("self_instruct", {}, ROW, OF_CLASS, seed) for seed in range(60)]
    row, engine, session = rows[0]
    assert row["is_classification"] is True and row["input"] == "snow falls"
    assert [turn["turn"] for turn in session.turns] == ["task", "classify", "labels", "input"]
    assert f'"{row["output"]}"' in engine.asked[3]
    outputs = [row["output"] for row, *_ in rows]
    assert set(outputs) == {"warm", "cold"} and min(outputs.count("warm"), outputs.count("cold")) > 15


def test_without_rounds_the_source_row_is_the_example():
    row, engine, _ = told("self_instruct", {"shots": 0}, {"instruction": "Name a fruit."}, SELF)
    assert "1. Name a fruit.\n\n" in engine.asked[0] and row["instruction"] == NEW
    assert "Task: Tell which" in engine.asked[2] and engine.asked[2].count("Task:") == 1
    for fields in ({}, {"instruction": None}, {"instruction": " "}, {"instruction": 3}):
        assert refusal("self_instruct", {}, fields, SELF) == "missing_field"
    assert refusal("self_instruct", {}, {"instruction": "Name it.", "examples": ["x", {}]}, SELF) == ""


@pytest.mark.parametrize(
    "call,said,reason",
    [
        ("task", "", "empty_task"),
        ("task", Reply("Tell which", "length"), "cut_task"),
        ("task", "Sing a song.", "too_short"),
        ("task", "word " * 151, "too_long"),
        ("task", "Describe what the image shows here.", "keyword"),
        ("task", "Please Go to the market and buy.", "keyword"),
        ("task", "(Tell me) what this is.", "punctuation"),
        ("task", "Überlege dir einen Satz.", "not_english"),
        ("task", "Write a program that adds numbers.", "opening"),
        ("task", "name a  fruit that is red.", "copied"),
        ("classify", "Yes, it is.", "unreadable_classify"),
        ("classify", {"classification": "yes"}, "unreadable_classify"),
        ("instance", '{"input": "x", "outp', "unreadable_instance"),
        ("instance", {"input": "x"}, "unreadable_instance"),
        ("classify", Reply("Well, in a", "length"), "cut_classify"),
        ("instance", Reply('{"input": "x", "outp', "length"), "cut_instance"),
        ("instance", Reply('{"input": "x"} is', "length"), "unreadable_instance"),
        ("instance", {"input": "x", "output": " "}, "empty_output"),
        ("instance", {"input": "x", "output": "X "}, "echo"),
        ("instance", {"input": "x", "output": NEW}, "echo"),
        ("instance", {"input": "x", "output": "It is this:"}, "open_end"),
        ("instance", {"input": "", "output": "a cherry."}, "repeated"),
        ("instance", AskRefused("context_length"), "context_length"),
    ],
)
def test_a_bad_task_refuses_the_ask(call, said, reason):
    assert refusal("self_instruct", {}, ROW, {**SELF, call: said}) == reason


@pytest.mark.parametrize(
    "call,said,reason",
    [
        ("labels", {"labels": ["one"]}, "few_labels"),
        ("labels", {"labels": [1, 2, " "]}, "few_labels"),
        ("labels", "good, bad", "unreadable_labels"),
        ("input", "some", "unreadable_input"),
        ("labels", Reply('{"labels": ["good",', "length"), "cut_labels"),
        ("input", Reply('{"input": "so', "length"), "cut_input"),
        ("input", {"input": " "}, "empty_input"),
        ("input", {"input": "Said so:"}, "open_end"),
    ],
)
def test_a_bad_classification_task_refuses_the_ask(call, said, reason):
    assert refusal("self_instruct", {}, ROW, {**OF_CLASS, call: said}) == reason


def test_a_label_may_be_one_that_examples_have():
    script = {**OF_CLASS, "labels": {"labels": ["good", "bad"]}}
    assert {told("self_instruct", {}, ROW, script, seed)[0]["output"] for seed in range(20)} == {"good", "bad"}


def test_broken_escapes_do_no_harm():
    said = '{"input": "\\ud800", "output": "a \\udfff b"}'
    row, *_ = told("self_instruct", {}, ROW, {**SELF, "instance": said})
    assert (row["input"], row["output"]) == ("?", "a ? b")


def test_a_task_is_taken_out_of_what_surrounds_it():
    for said in [
        "Say it twice.", '"Say it twice."', "9. Say it twice.", "Task 9: Say it twice.", "**New task:** Say it twice.",
        "Here is one:\n- Say it twice.\nInput: x", "**Say it twice.**", "Task:\nSay it twice.",
    ]:  # fmt: skip
        assert task_of(said) == "Say it twice."
    assert task_of("Explain what `x` means in `f`") == "Explain what `x` means in `f`"
    assert task_of('"Yes" or "no"') == '"Yes" or "no"' and task_of("") == ""


@given(st.text(), st.text(), st.text())
def test_faults_are_told_of_any_text(task, given_input, output):
    fault = task_fault(task_of(task), SEEDS, SelfInstructSpec())
    assert fault or len(task_of(task).split()) >= 4
    assert instance_fault(task, given_input, output, SEEDS) or output


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_instruction_evolves_by_each_operation(operation):
    fields = {"instruction": "Name a red fruit.", "depth": 2}
    row, engine, session = told("evol_instruct", {"operations": {operation: 2}}, fields, EVOL)
    assert row["operation"] == operation and row["parent"] == "Name a red fruit." and row["depth"] == 3
    assert row["instruction"] == EVOL[EVOLVE] and row["output"] == EVOL[""]
    assert [turn["turn"] for turn in session.turns] == [operation, "equal", "response"]
    assert "Name a red fruit." in engine.asked[0] and engine.asked[2] == row["instruction"]


def test_operations_are_drawn_by_weight_and_depth_starts_at_one():
    assert told("evol_instruct", {}, {"instruction": "Name a red fruit."}, EVOL)[0]["depth"] == 1
    names = [draw_operation({"deepen": 3.0, "breadth": 1.0, "reasoning": 0.0}, seed) for seed in range(800)]
    assert set(names) == {"deepen", "breadth"} and names.count("deepen") == pytest.approx(600, abs=60)
    assert {draw_operation(dict.fromkeys(OPERATIONS, 1.0), seed) for seed in range(200)} == set(OPERATIONS)


@pytest.mark.parametrize(
    "call,said,reason",
    [
        (EVOLVE, "", "empty_deepen"),
        (EVOLVE, Reply("Name three", "length"), "cut_deepen"),
        (EVOLVE, "New instruction: name three fruits.", "copied_prompt"),
        (EVOLVE, "#Rewritten Prompt#: name three", "copied_prompt"),
        (EVOLVE, "name A red   fruit.", "no_gain"),
        ("equal", {"same": True}, "no_gain"),
        ("equal", "They differ.", "unreadable_equal"),
        ("equal", Reply('{"sam', "length"), "cut_equal"),
        ("", "I am sorry, I cannot do that.", "sorry"),
        ("", "It is what it is, and so on...", ""),
        ("", "What? Is it the, or not!", "stop_words"),
        ("", "?! ...", "stop_words"),
        ("", "", "empty_response"),
        ("", Reply("Cherry, app", "length"), "cut_response"),
        ("", AskRefused("context_length"), "context_length"),
    ],
)
def test_failed_evolutions_are_eliminated(call, said, reason):
    script = {**EVOL, call: said}
    if reason == "":
        script[call] = "It is what it is, on the whole."
    assert refusal("evol_instruct", DEEPER, {"instruction": "Name a red fruit."}, script) == reason


def test_long_apologies_and_the_parents_own_words_are_no_fault():
    assert response_fault("Sorry. " + "Cherries are red. " * 30) is None
    assert not copies("Rate the new prompt twice.", "Rate the new prompt.", ("new prompt",))
    for fields in ({}, {"instruction": None}, {"instruction": ""}):
        assert refusal("evol_instruct", {}, fields, EVOL) == "missing_field"


@pytest.mark.parametrize(
    "instruction",
    [
        "Describe the water cycle in at most 20 words.",
        "Draft a new instruction for the night shift, and mark where the original instruction was unclear.",
        "Translate the instruction below into French, and respond to the instruction that follows it.",
        "Turn this puzzle into a more demanding version for adults, with either instruction kept.",
        "Write a new prompt for a drawing class, given the prompt of last week.",
        "List the x86 and ARM opcodes for addition and say which original instruction set had which.",
    ],
)
def test_good_evolutions_share_words_with_the_templates(instruction):
    assert not copies(instruction, "", EvolInstructSpec().giveaways)


@pytest.mark.parametrize("lead", ["Rewritten instruction: ", "**New Instruction:** ", "Original instruction:\n"])
def test_labels_of_an_answer_are_copies(lead):
    assert copies(f"{lead}Name a red fruit.", "", EvolInstructSpec().giveaways)


def test_no_built_in_template_can_be_copied_unseen():
    spec = method_of("evol_instruct", {}).spec
    for name in OPERATIONS:
        assert copies(spec.wording[name], "", spec.giveaways)


def test_keys_are_checked():
    for kind, table, message in [
        ("self_instruct", {"shots": -1}, "shots"),
        ("self_instruct", {"min_words": 9, "max_words": 8}, "min_words"),
        ("self_instruct", {"templates": {"task": "Make one."}}, "must hold {tasks}"),
        ("self_instruct", {"templates": {"input": "{instruction}"}}, "must hold {label}"),
        ("evol_instruct", {"operations": {"deepn": 1}}, "did you mean 'deepen'"),
        ("evol_instruct", {"operations": {"deepen": -1}}, "negative"),
        ("evol_instruct", {"operations": {"deepen": 0}}, "above 0"),
        ("evol_instruct", {"operations": {"deepen": 1}, "templates": {"breadth": "{instruction}"}}, "no such call"),
    ]:
        with pytest.raises(UserError, match=message):
            method_of(kind, table)
    for kind in ("self_instruct", "evol_instruct"):
        method = method_of(kind, {"system": "{who}"})
        assert method.fields_read() == ["instruction", "who"]
        assert set(method.feedback_columns) <= {f.name for f in method.payload} and method.feed
        json.dumps(method.identity())


def test_the_same_rows_again_however_they_are_batched():
    script = {**SELF, "task": [NEW, "Too short.", "9. Say what a season is like."]}
    script |= {"classify": [{"classification": True}, {"classification": False}, "?"]}
    rows = made("self_instruct", {}, [{**row, "examples": SEEDS} for row in SEEDS] * 15, script)
    assert {row["reject"] for row in rows} == {None, "generator:too_short", "generator:unreadable_classify"}
    script = {**EVOL, "equal": [{"same": False}, {"same": True}], "": ["A fine fruit.", "Sorry."]}
    rows = made("evol_instruct", {}, SEEDS * 15, script)
    assert {row["reject"] for row in rows} == {None, "generator:no_gain", "generator:sorry"}
    assert {row["depth"] for row in rows if row["reject"] is None} == {1}


def test_without_gain_nothing_is_asked_about_it():
    fields = {"instruction": "Explain tides."}
    says = ["Explain spring tides and neap tides with dates.", "The moon pulls."]
    payload, engine, _ = told("evol_instruct", {"gain": False, "operations": {"deepen": 1}}, fields, says)
    assert payload["output"] == "The moon pulls." and len(engine.asked) == 2
    method = method_of("evol_instruct", {"gain": False})
    assert {frozenset(way) for way in method.ways()} >= {frozenset({"deepen", "response"})}
    assert not any("equal" in way for way in method.ways()) and len(method.ways()) == 6
