"""dialogue: two sides that take turns, and conversations that end early."""

import pytest

from gristmill.engines.errors import AskRefused
from gristmill.records.errors import UserError
from tests.generators.text.script import cut_off, method_of, told

TOPIC = {"topic": "tides"}
TALK = ["User: Why are there tides?", "Because of the moon.", "And the sun?", "It helps.", "How much?", "By half."]
THREE = {"min_exchanges": 3}


def test_the_two_sides_take_turns_and_see_what_was_said():
    payload, engine, session = told("dialogue", {**THREE, "system": "Be result."}, TOPIC, TALK)
    assert [m["role"] for m in payload["messages"]] == ["system"] + ["user", "assistant"] * 3
    assert [m["content"] for m in payload["messages"]] == ["Be result.", "Why are there tides?", *TALK[1:]]
    assert payload["exchanges"] == 3 and payload["text"].startswith("User: Why are there tides?\n\nAssistant: Because")
    assert payload["topic"] in engine.asked[0] and payload["persona"] in engine.asked[0]
    assert payload["persona"] in engine.asked[4] and "Assistant: It helps." in engine.asked[4]
    assert "END" in engine.asked[2] and "Be result." not in engine.asked[2]
    assert engine.asked[5] == payload["messages"][:6]
    assert [t["turn"] for t in session.turns] == ["opening", "assistant", *["further", "assistant"] * 2]


def test_each_side_has_its_own_sampling():
    sampling = {"opening": {"temperature": 1.1}, "further": {"temperature": 0.9}, "assistant": {"max_tokens": 30}}
    _, engine, _ = told("dialogue", {"sampling": sampling, "exchanges": 2}, TOPIC, TALK)
    assert [s.get("temperature") for s in engine.sampling] == [1.1, 0.5, 0.9, 0.5]
    assert [s.get("max_tokens") for s in engine.sampling] == [None, 30, None, 30]


def test_lengths_and_personas_are_drawn():
    drawn = [told("dialogue", {"exchanges": 4, "min_exchanges": 2}, TOPIC, TALK, seed)[0] for seed in range(80)]
    assert {d["exchanges"] for d in drawn} == {2, 3, 4}
    assert {d["persona"] for d in drawn} == set(method_of("dialogue", {}).spec.personas)
    assert all(m["role"] != "system" for d in drawn for m in d["messages"])


def test_the_user_may_be_a_column_of_the_source():
    fields = {**TOPIC, "persona": "a nurse of 40", "who": "a cook"}
    payload, engine, _ = told("dialogue", {**THREE, "persona": "persona"}, fields, TALK)
    assert payload["persona"] == "a nurse of 40" in engine.asked[0]
    assert told("dialogue", {**THREE, "persona": "who"}, fields, TALK)[0]["persona"] == "a cook"
    assert method_of("dialogue", {"persona": "who"}).fields_read() == ["topic", "who"]
    with pytest.raises(UserError, match="either persona, a column of the source, or personas"):
        method_of("dialogue", {"persona": "who", "personas": ["a cook"]})


@pytest.mark.parametrize("last", ["END", "Thank you, that is all. END.", " ", AskRefused("context_length")])
def test_a_conversation_that_ends_early_is_kept_when_it_is_long_enough(last):
    whole, seed = next(
        (whole, seed) for seed in range(20) if (whole := told("dialogue", {}, TOPIC, TALK, seed)[0])["exchanges"] == 3
    )
    payload, _, session = told("dialogue", {}, TOPIC, [*TALK[:4], last], seed)
    assert payload["exchanges"] == 2 and payload["messages"] == whole["messages"][:4]
    assert len(session.turns) == 5  # what ended it is evidence too


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["END"], "ended"),
        ([""], "ended"),
        ([cut_off()], "cut_user"),
        ([TALK[0], ""], "empty_assistant"),
        ([TALK[0], cut_off()], "cut_assistant"),
        ([*TALK[:2], "END"], "ended"),
        ([*TALK[:2], AskRefused("context_length")], "context_length"),
        ([*TALK[:5], AskRefused("engine_refused")], "engine_refused"),
    ],
)
def test_a_conversation_that_is_too_short_is_refused(answers, reason):
    assert told("dialogue", THREE, TOPIC, answers)[0] == reason


def test_lone_surrogates_do_not_get_into_messages():
    payload, _, _ = told("dialogue", {"exchanges": 1, "min_exchanges": 1}, TOPIC, ["What \ud800 now?", "\udfff yes"])
    assert [m["content"] for m in payload["messages"]] == ["What ? now?", "? yes"]
