"""annotate: votes, their agreement, and answers that are no votes."""

import json

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import first_object
from tests.generators.text.script import cut_off, method_of, told

LABELS = {"labels": ["good", "bad", "mixed"]}
TEXT = {"text": "It broke on the first day."}


def vote(label, why="so"):
    return json.dumps({"rationale": why, "label": label})


def test_the_majority_wins_with_the_reason_of_its_first_vote():
    answers = [vote("good", "a"), vote("bad", "b"), vote("bad", "c")]
    payload, engine, session = told("annotate", LABELS, TEXT, answers)
    assert payload["label"] == "bad" and payload["rationale"] == "b"
    assert payload["votes"] == ["good", "bad", "bad"] and payload["agreement"] == pytest.approx(2 / 3)
    assert payload["text"] == TEXT["text"] and "- mixed" in engine.asked[0] and TEXT["text"] in engine.asked[0]
    assert len(set(engine.seeds)) == 3 and {t["turn"] for t in session.turns} == {"vote"}
    jsonschema.validate(json.loads(answers[0]), engine.schemas[0])


def test_answers_that_are_no_votes_count_against_the_agreement():
    answers = [
        "not JSON",
        vote("superb"),
        cut_off('{"rationale": "it'),
        '["good"]',
        vote("good"),
        "",
        '{"label": "bad"}',
    ]
    payload, _, _ = told("annotate", {**LABELS, "votes": 7}, TEXT, answers)
    assert payload["votes"] == [None, None, None, None, "good", None, None]
    assert payload["label"] == "good" and payload["agreement"] == pytest.approx(1 / 7)
    assert told("annotate", LABELS, TEXT, ["no"])[0] == "no_votes"
    assert told("annotate", LABELS, TEXT, [vote("good"), AskRefused("context_length")])[0] == "context_length"


def test_too_little_agreement_is_refused():
    answers = [vote("good"), vote("bad"), vote("mixed")]
    assert told("annotate", LABELS, TEXT, answers)[0]["label"] == "good"  # of equals the first
    assert told("annotate", {**LABELS, "min_agreement": 0.5}, TEXT, answers)[0] == "agreement"
    found, _, session = told("annotate", {**LABELS, "min_agreement": 1.0}, TEXT, [vote("bad")])
    assert found["agreement"] == 1.0 and len(session.turns) == 3


@given(st.lists(st.sampled_from(["good", "bad", "mixed", None]), min_size=1, max_size=9))
def test_votes_are_counted(labels):
    answers = [vote(label) if label else "{}" for label in labels]
    payload, _, _ = told("annotate", {**LABELS, "votes": len(labels)}, TEXT, answers)
    cast = [label for label in labels if label]
    if not cast:
        assert payload == "no_votes"
        return
    most = max(cast.count(label) for label in cast)
    assert payload["label"] == next(label for label in cast if cast.count(label) == most)
    assert payload["agreement"] == most / len(labels) and payload["votes"] == labels


def test_a_schema_of_ones_own_may_have_labels_of_any_type():
    schema = {
        "type": "object",
        "properties": {"label": {"type": "array", "items": {"enum": ["a", "b"]}}, "sure": {"type": "boolean"}},
        "required": ["label", "sure"],
    }
    answers = ['{"label": ["a", "b"], "sure": true}', '{"label": ["a"]}', '{"sure": false, "label": ["a", "b"]}']
    payload, engine, _ = told("annotate", {"schema": schema}, TEXT, answers)
    assert payload["label"] == '["a", "b"]' and payload["agreement"] == pytest.approx(2 / 3)
    assert payload["rationale"] is None and engine.schemas[0] == schema and '"sure"' in engine.asked[0]
    numbers = {"type": "object", "properties": {"label": {"type": "integer"}}, "required": ["label"]}
    assert told("annotate", {"schema": numbers}, TEXT, ['{"label": 3}'])[0]["label"] == "3"
    assert method_of("annotate", {"schema": numbers}).identity() != method_of("annotate", {"schema": schema}).identity()


def test_escapes_that_are_half_a_character_do_not_get_into_a_column():
    free = {"type": "object", "properties": {"label": {}, "rationale": {"type": "string"}}, "required": ["label"]}
    answers = [
        r'{"rationale": "\ud83d so", "label": "\ud83d"}',
        r'{"label": ["\udc00", {"\ud800": "\ud83d\ude00"}]}',
        "```json\n" + r'{"label": "\ud83d"}' + "\n```",
    ]
    payload, _, _ = told("annotate", {"schema": free}, TEXT, answers)
    assert payload["votes"] == ["?", '["?", {"?": "😀"}]', "?"] and payload["rationale"] == "? so"
    for field in method_of("annotate", {"schema": free}).payload:
        pa.array([payload[field.name]], field.type).validate(full=True)
    assert told("annotate", LABELS, TEXT, [r'{"rationale": "\ud83d", "label": "good"}'])[0]["rationale"] == "?"


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda some: st.lists(some) | st.dictionaries(st.text(), some))
)
def test_the_first_object_is_found_in_what_stands_around_it(value):
    said = {"a": value}
    assert first_object(f"So: {json.dumps(said)} }}") == said and first_object(json.dumps(said)[:-1]) is None
