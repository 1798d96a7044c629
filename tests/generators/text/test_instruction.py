"""exercise, distill, backtranslate and magpie: instruction data, and what becomes of answers that cannot be used."""

import pytest

from gristmill.engines.errors import AskRefused
from gristmill.engines.user_turn import USER_TURN
from gristmill.generators.text.registry import method_class
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from tests.generators.text.script import cut_off, method_of, told

TOPIC = {"topic": "tides"}
EXERCISE = "Explain why there are two tides on most days."


def test_an_exercise_is_written_and_then_solved():
    payload, engine, session = told("exercise", {}, TOPIC, [f"**Exercise 1:** {EXERCISE}\n", " Because of the moon. "])
    assert payload["instruction"] == EXERCISE and payload["output"] == "Because of the moon."
    assert payload["text"] == f"{EXERCISE}\n\nBecause of the moon." and payload["topic"] == "tides"
    assert all(payload[name] in engine.asked[0] for name in ("topic", "audience", "difficulty", "form"))
    assert EXERCISE in engine.asked[1] and payload["audience"] in engine.asked[1]
    assert [turn["turn"] for turn in session.turns] == ["exercise", "solution"]
    assert len(set(engine.seeds)) == 2


def test_exercises_of_one_topic_are_drawn_apart():
    method = method_of("exercise", {})
    drawn = [told("exercise", {}, TOPIC, [EXERCISE, "So."], seed)[0] for seed in range(300)]
    for name, options in (("audience", "audiences"), ("difficulty", "difficulties"), ("form", "forms")):
        assert {d[name] for d in drawn} == set(getattr(method.spec, options))
    assert len({(d["audience"], d["difficulty"], d["form"]) for d in drawn}) > 100


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([cut_off()], "cut_exercise"),
        ([" \n"], "empty_exercise"),
        (["Exercise: What?"], "short"),
        ([EXERCISE, "  "], "empty_solution"),
        ([EXERCISE, cut_off()], "cut_solution"),
        ([EXERCISE, AskRefused("context_length")], "context_length"),
    ],
)
def test_an_exercise_that_cannot_be_used_is_refused(answers, reason):
    found, engine, session = told("exercise", {}, TOPIC, answers)
    assert found == reason and len(engine.asked) == len(answers)
    assert session.tokens_out == 5 * sum(not isinstance(a, Exception) for a in answers)


def test_a_single_answer_that_is_cut_off_is_left_to_the_finish_stage():
    payload, _, session = told("distill", {}, {"text": "Why?"}, [cut_off()])
    assert payload["output"] == cut_off().text and session.finish == "length"


def test_an_exercise_reads_what_its_templates_name():
    templates = {"exercise": "{topic} {level}", "solution": "{exercise} {hint} {form}"}
    table = {"topic": "text", "templates": templates, "system": "{who}"}
    assert method_of("exercise", table).fields_read() == ["text", "level", "hint", "who"]


def test_distilled_rows_keep_prompt_and_answer_but_not_the_system_message():
    table = {"template": "Q: {q}", "system": "Be {tone}."}
    payload, engine, _ = told("distill", table, {"q": "Why?", "tone": "kind"}, [" Because. "])
    assert payload == {"instruction": "Q: Why?", "output": "Because.", "text": "Q: Why?\n\nBecause."}
    assert engine.asked[0] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Q: Why?"}]


def test_distilling_an_instruction_with_its_input():
    table = {"template": "Sum it up.", "input": "document"}
    payload, engine, _ = told("distill", table, {"document": "A long story."}, ["A story."])
    assert payload["input"] == "A long story." and engine.asked == ["Sum it up.\n\nA long story."]
    assert payload["text"] == "Sum it up.\n\nA long story.\n\nA story."
    assert method_of("distill", table).fields_read() == ["document"]
    assert told("distill", {}, {"text": "Why?"}, [""])[0] == "empty_answer"


UNREADABLE = ("", "four", "[4]", '{"score": 9}', '{"score": true}', '{"score": 4.5}')
DOCUMENT = {"text": "The tide comes twice a day. " * 3}


def test_backtranslation_answers_with_the_document_and_its_score():
    answers = ['Request: "How often does the tide come?"', '{"score": 4}']
    payload, engine, session = told("backtranslate", {"max_words": 6}, DOCUMENT, answers)
    assert payload == {
        "instruction": "How often does the tide come?",
        "output": "The tide comes twice a day.",
        "score": 4,
        "text": "How often does the tide come?\n\nThe tide comes twice a day.",
    }
    assert "How often" in engine.asked[1] and engine.schemas[0] is None
    assert engine.schemas[1]["properties"]["score"]["maximum"] == 5
    assert [turn["turn"] for turn in session.turns] == ["instruction", "score"]
    payload, engine, _ = told("backtranslate", {"curate": False}, DOCUMENT, answers)
    assert "score" not in payload and len(engine.asked) == 1
    assert not method_of("backtranslate", {"curate": False}).keeps_turns


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["What now?"], "short"),
        ([cut_off()], "cut_instruction"),
        ([""], "empty_instruction"),
        (["How often is it?", '{"score": 3}'], "score"),
        *((["How often is it?", said], "unreadable_score") for said in UNREADABLE),
        (["How often is it?", cut_off('{"sco')], "cut_score"),
    ],
)
def test_pairs_that_the_curator_does_not_keep_are_refused(answers, reason):
    assert told("backtranslate", {"min_score": 4}, DOCUMENT, answers)[0] == reason


def test_magpie_lets_the_model_write_the_users_turn():
    table = {"system": "You know all about {topic}.", "sampling": {"instruction": {"temperature": 1.2}}}
    payload, engine, session = told("magpie", table, TOPIC, [" Why is there a tide? ", "The moon."])
    system = {"role": "system", "content": "You know all about tides."}
    assert engine.asked[0] == [system, USER_TURN]
    assert engine.asked[1] == [system, {"role": "user", "content": "Why is there a tide?"}]
    assert [s["temperature"] for s in engine.sampling] == [1.2, 0.5]
    assert payload["instruction"] == "Why is there a tide?" and payload["output"] == "The moon."
    assert [(t["turn"], t["prompt"]) for t in session.turns] == [
        ("instruction", ""),
        ("output", "Why is there a tide?"),
    ]
    assert told("magpie", {}, {}, ["Why is there a tide?", "The moon."])[1].asked == [
        [USER_TURN],
        "Why is there a tide?",
    ]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([""], "empty_instruction"),
        (["Hi there"], "short"),
        ([cut_off()], "cut_instruction"),
        (["a b c", ""], "empty_output"),
        (["a b c", cut_off()], "cut_output"),
    ],
)
def test_magpie_refuses_instructions_that_are_none(answers, reason):
    assert told("magpie", {}, {}, answers)[0] == reason


@pytest.mark.parametrize(
    ("kind", "table", "says"),
    [
        ("exercise", {"templates": {"exercise": "Write."}}, "{topic}"),
        ("exercise", {"templates": {"solution": "Solve {topic}."}}, "{exercise}"),
        ("exercise", {"forms": []}, "forms"),
        ("exercise", {"min_words": 0}, "min_words"),
        ("distill", {"input": "{text}"}, "'{text}'"),
        ("backtranslate", {"templates": {"instruction": "x"}}, "{document}"),
        ("backtranslate", {"templates": {"score": "{document}"}}, "{instruction}"),
        ("backtranslate", {"curate": False, "sampling": {"score": {}}}, "has no effect"),
        ("backtranslate", {"min_score": 6}, "1..5"),
        ("backtranslate", {"min_score": 3, "curate": False}, "curate"),
        ("backtranslate", {"max_words": 0}, "max_words"),
        ("magpie", {"templates": {"instruction": "Ask."}}, "no prompt"),
        ("magpie", {"sampling": {"instruction": {"temprature": 1}}}, "did you mean 'temperature'"),
        ("magpie", {"min_words": 0}, "min_words"),
        ("paraphrase", {"template": "{style}"}, "{document}"),
        ("textbook", {"topic": "a}{b"}, "'a}{b'"),
        ("code", {"seed": "a}{b"}, "'a}{b'"),
        ("math", {"seed": ""}, "''"),
        ("paraphrase", {"styles": []}, "styles"),
        ("translate", {"round_trip": True, "templates": {"back": "{target}"}}, "{translation}"),
        ("translate", {"targets": []}, "targets"),
        ("dialogue", {"min_exchanges": 4}, "min_exchanges"),
        ("dialogue", {"templates": {"further": "{topic}"}}, "{transcript}"),
        ("dialogue", {"templates": {"assistant": "{topic}"}}, "the messages"),
        ("dialogue", {"personas": []}, "personas"),
        ("dialogue", {"end": " "}, "end"),
        ("annotate", {}, "labels"),
        ("annotate", {"labels": ["a"]}, "two"),
        ("annotate", {"labels": ["a", "a"]}, "once"),
        ("annotate", {"labels": ["a", "b"], "schema": {}}, "either"),
        ("annotate", {"schema": {"type": "objekt"}}, "not a JSON Schema"),
        ("annotate", {"schema": {"properties": {"label": {}}}}, "required"),
        ("annotate", {"labels": ["a", "b"], "min_agreement": 2.0}, "min_agreement"),
        ("annotate", {"labels": ["a", "b"], "votes": 0}, "votes"),
    ],
)
def test_wrong_keys_are_told_in_a_line(kind, table, says):
    with pytest.raises(UserError, match=says.replace("{", r"\{")) as error:
        build(method_class(kind).Spec, table, "method")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "table", "most"),
    [
        ("exercise", {"sampling": {"exercise": {"max_tokens": 30}}}, 130),
        ("magpie", {}, 200),
        ("backtranslate", {}, 200),
        ("backtranslate", {"curate": False}, 100),
        ("translate", {"round_trip": True}, 200),
        ("dialogue", {"exchanges": 4, "sampling": {"assistant": {"max_tokens": 50}}}, 600),
        ("annotate", {"labels": ["a", "b"], "votes": 5}, 500),
    ],
)
def test_the_most_tokens_that_an_ask_can_cost(kind, table, most):
    assert method_of(kind, table).most_tokens(100) == most
