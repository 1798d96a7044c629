"""paraphrase, translate and the further styles of rephrase."""

import pytest

from gristmill.generators.text.registry import method_class
from gristmill.generators.text.rephrase import TEMPLATES
from tests.generators.text.script import cut_off, method_of, told

TEXT = {"text": "The tide comes twice a day."}


def test_a_paraphrase_keeps_the_original_and_its_style():
    payload, engine, _ = told("paraphrase", {"max_words": 3}, TEXT, ['"Twice a day comes the tide."'])
    assert payload["original"] == "The tide comes" and payload["text"] == "Twice a day comes the tide."
    assert payload["style"] in engine.asked[0] and engine.asked[0].endswith("The tide comes")
    styles = {told("paraphrase", {}, TEXT, ["Other words."], seed)[0]["style"] for seed in range(80)}
    assert styles == set(method_of("paraphrase", {}).spec.styles)


@pytest.mark.parametrize("kind", ["paraphrase", "translate"])
def test_words_that_came_back_as_they_were_are_refused(kind):
    assert told(kind, {}, TEXT, ["the TIDE comes\ntwice a day."])[0] == "unchanged"
    assert told(kind, {}, TEXT, [" "])[0] == ("empty_answer" if kind == "paraphrase" else "empty_translation")


def test_what_was_cut_off_is_left_to_the_finish_stage_where_it_is_all_there_is():
    payload, _, session = told("paraphrase", {}, TEXT, [cut_off()])
    assert payload["text"] == cut_off().text and session.finish == "length"
    assert told("translate", {}, TEXT, [cut_off()])[0] == "cut_translation"


def test_a_translation_goes_one_way():
    table = {"targets": ["French", "German"]}
    payload, engine, _ = told("translate", table, TEXT, ["French: La marée vient deux fois par jour."], seed=1)
    targets = {told("translate", table, TEXT, ["La marée."], seed)[0]["target"] for seed in range(20)}
    assert targets == {"French", "German"} and payload["target"] in engine.asked[0] and "English" in engine.asked[0]
    assert set(payload) == {"original", "target", "text"} and not method_of("translate", table).keeps_turns
    assert payload["text"].endswith("La marée vient deux fois par jour.")


def test_a_round_trip_comes_back_as_a_paraphrase():
    table = {"targets": ["French"], "round_trip": True}
    answers = ["La marée vient deux fois.", "The tide arrives twice daily."]
    payload, engine, session = told("translate", table, TEXT, answers)
    assert payload == {
        "original": TEXT["text"],
        "target": "French",
        "translation": "La marée vient deux fois.",
        "text": "The tide arrives twice daily.",
    }
    assert "from French into English" in engine.asked[1] and answers[0] in engine.asked[1]
    assert [turn["turn"] for turn in session.turns] == ["translation", "back"]
    assert told("translate", table, TEXT, [answers[0], TEXT["text"]])[0] == "unchanged"
    assert told("translate", table, TEXT, [cut_off()])[0] == "cut_translation"
    assert told("translate", table, TEXT, [answers[0], ""])[0] == "empty_back"
    assert told("translate", table, TEXT, [answers[0], cut_off()])[0] == "cut_back"


@pytest.mark.parametrize("style", ["qa", "distill", "extract_knowledge", "knowledge_list"])
def test_the_styles_of_nemotron_are_built_in(style):
    payload, engine, _ = told("rephrase", {"styles": [style]}, TEXT, ["New."])
    assert payload == {"style": style, "text": "New."}
    assert engine.asked[0].endswith(f"Document:\n{TEXT['text']}") and "{" not in engine.asked[0]
    method = method_of("rephrase", {"styles": [style]})
    assert method.identity()["templates"] == {style: TEMPLATES[style]}


def test_further_styles_leave_the_rows_of_older_recipes_as_they_are():
    assert method_class("rephrase").Spec().styles == ("faq", "tutorial", "table", "wikipedia")
    assert set(method_of("rephrase", {}).identity()["templates"]) == {"faq", "tutorial", "table", "wikipedia"}
