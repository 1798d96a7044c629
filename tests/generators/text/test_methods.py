"""The text methods: rendering, draws, refusals, and what a session counts. No engine."""

import asyncio
import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.canned.generator import CannedEngine, CannedSpec
from gristmill.generators.text.contract import Ask, Session, Template, mix
from gristmill.generators.text.registry import KINDS, method_class
from gristmill.records.errors import UserError
from gristmill.records.spec import build


class Echo:
    """Answers with what it was asked and remembers the calls."""

    synchronous = True

    def __init__(self, finishes=("stop",)):
        self.calls = []
        self.finishes = list(finishes)

    async def chat(self, prompt, sampling, seed, form=FREE_TEXT):
        self.calls.append((prompt, dict(sampling), seed, form))
        finish = self.finishes[min(len(self.calls), len(self.finishes)) - 1]
        return Reply(f"  answer {len(self.calls)}\n", finish, 10, 5)


def run(kind, table, fields, seed=7):
    method = method_class(kind)(build(method_class(kind).Spec, table, "method"))
    engine = Echo()
    session = Session(engine, seed, {"temperature": 1.0})
    return asyncio.run(method.run(Ask("a" * 32, seed, fields), session)), engine, method


def test_prompt_renders_columns_of_any_type():
    table = {"template": "Say {text} {n} times, {{so}}", "system": "You are {who}."}
    payload, engine, method = run("prompt", table, {"text": "hé", "n": 3, "who": "kind"})
    assert payload == {"prompt": "Say hé 3 times, {so}", "text": "answer 1"}
    assert engine.calls[0][0][0] == {"role": "system", "content": "You are kind."}
    assert method.fields_read() == ["text", "n", "who"]


@pytest.mark.parametrize("fields", [{}, {"text": None}])
def test_a_missing_field_refuses_the_ask(fields):
    with pytest.raises(AskRefused) as refused:
        run("prompt", {}, fields)
    assert refused.value.reason == "missing_field"


@pytest.mark.parametrize("text", ["{", "}", "{}", "{ }", "{{a}", "{a{b}}", '{"json": 1}', "{a\nb}"])
def test_malformed_braces_are_refused_at_construction(text):
    for kind in KINDS:
        table = {"templates": {"faq": text}} if kind == "rephrase" else {"template": text}
        with pytest.raises(UserError):
            build(method_class(kind).Spec, table, "method")


NAMES = ["first name", "a.b", "a[0]", "x:>10", "x!r", "0", "\u00e9t\u00e9", "%s", "a-b "]


@pytest.mark.parametrize("name", NAMES)
def test_a_hole_holds_any_name_of_a_column(name):
    fields = {name: "v", "a": {"b": 1}, "x": 1}
    payload, _, method = run("prompt", {"template": f"{{{{{{{name}}}}}}}: {{{name}}}"}, fields)
    assert method.fields_read() == [name] and payload["prompt"] == "{v}: v"


def test_textbook_draws_by_seed_and_covers_its_taxonomy():
    one, _, method = run("textbook", {}, {"topic": "tides"})
    again, _, _ = run("textbook", {}, {"topic": "tides"})
    assert one == again and one["topic"] == "tides" and "tides" in one["prompt"]
    drawn = [run("textbook", {}, {"topic": "tides"}, seed)[0] for seed in range(400)]
    assert {d["audience"] for d in drawn} == set(method.spec.audiences)
    assert {d["style"] for d in drawn} == set(method.spec.styles)
    assert len({(d["audience"], d["style"]) for d in drawn}) > 100
    assert method.fields_read() == ["topic"]
    assert set(one) == {f.name for f in method.payload}


def test_textbook_takes_its_topic_from_another_column():
    payload, _, method = run("textbook", {"topic": "text"}, {"text": "tides"})
    assert payload["topic"] == "tides" and method.fields_read() == ["text"]


def test_rephrase_cuts_the_document_and_never_carries_it():
    document = "one two\nthree four five"
    payload, engine, _ = run("rephrase", {"styles": ["faq"], "max_words": 3}, {"text": document})
    assert engine.calls[0][0].endswith("one two\nthree") and payload == {"style": "faq", "text": "answer 1"}
    styles = {run("rephrase", {}, {"text": document}, seed)[0]["style"] for seed in range(60)}
    assert styles == {"faq", "tutorial", "table", "wikipedia"}


def test_rephrase_refuses_unknown_styles_and_templates_without_a_document():
    with pytest.raises(UserError, match="poem"):
        run("rephrase", {"styles": ["poem"]}, {"text": "x"})
    with pytest.raises(UserError, match="document"):
        run("rephrase", {"templates": {"faq": "nothing"}}, {"text": "x"})
    payload, engine, _ = run("rephrase", {"styles": ["poem"], "templates": {"poem": "P: {document}"}}, {"text": "x"})
    assert payload["style"] == "poem" and engine.calls[0][0] == "P: x"


def test_a_session_gives_every_call_its_seed_and_sums_the_cost():
    engine = Echo(["stop", "length", "stop"])
    session = Session(engine, 5, {"temperature": 1.0, "max_tokens": 9})

    async def talk():
        for _ in range(3):
            await session.chat("hello", temperature=0.5)

    asyncio.run(talk())
    seeds = [call[2] for call in engine.calls]
    assert seeds == [mix(5, n) for n in range(3)] and len(set(seeds)) == 3
    assert (session.tokens_in, session.tokens_out, session.finish) == (30, 15, "length")
    assert engine.calls[0][1] == {"temperature": 0.5, "max_tokens": 9}


def test_gathered_calls_keep_their_order_and_cost_all_that_they_cost():
    class Late:
        """Answers the later asked first, and refuses the one that is called 'no'."""

        synchronous = False

        def __init__(self):
            self.left = 3

        async def chat(self, prompt, sampling, seed, form=FREE_TEXT):
            self.left -= 1
            await asyncio.sleep(0.01 * self.left)
            if prompt == "no":
                raise AskRefused("context_length")
            return Reply(f"{prompt} {seed}", "stop", 10, 5)

    session = Session(Late(), 5, {})
    replies = asyncio.run(session.chats(["a", "b", [{"role": "user", "content": "c"}]], turn="vote"))
    assert [r.text for r in replies] == [f"{p} {mix(5, n)}" for n, p in enumerate(["a", "b"])] + [
        f"{[{'role': 'user', 'content': 'c'}]} {mix(5, 2)}"
    ]
    assert [(t["turn"], t["prompt"]) for t in session.turns] == [("vote", "a"), ("vote", "b"), ("vote", "c")]
    session = Session(Late(), 5, {})
    with pytest.raises(AskRefused):
        asyncio.run(session.chats(["a", "no", "c"]))
    assert session.tokens_out == 10 and [t and t["prompt"] for t in session.turns] == ["a", None, "c"]


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_the_canned_engine_fits_a_json_schema_and_says_what_it_is_told(seed):
    schema = {
        "type": "object",
        "properties": {
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
            "label": {"enum": ["a", "b"]},
            "why": {"type": "string", "minLength": 100, "maxLength": 150},
            "steps": {"type": "array", "minItems": 2, "maxItems": 4, "items": {"$ref": "#/$defs/step"}},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        },
        "required": ["score", "label", "why", "steps", "maybe"],
        "$defs": {"step": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}},
    }
    spec = build(CannedSpec, {"answers": [{"when": "hello", "say": ["hi", "good day"]}]}, "generator")
    engine = CannedEngine(spec, [])
    said = asyncio.run(engine.chat("what?", {}, seed, AnswerForm(schema))).text
    jsonschema.validate(json.loads(said), schema)
    assert asyncio.run(engine.chat("hello there", {}, seed, AnswerForm(schema))).text in ("hi", "good day")


def test_mix_spreads_and_stays_in_range():
    values = [mix(seed, salt) for seed in (0, 1, 2**63 - 1) for salt in range(-5, 300)]
    assert len(set(values)) == len(values) and all(0 <= v < 2**63 for v in values)


def test_unknown_kinds_name_the_nearest():
    with pytest.raises(UserError, match="textbook"):
        method_class("textbok")


def test_template_names_in_order():
    assert Template("{b} {a} {b}").names == ["b", "a"]
