"""Reasoning, structures and logprobs with the real engine, and with vLLM's parsers on its tokenizer."""

import asyncio
import json
import math
import re
from collections.abc import Iterator
from types import SimpleNamespace as Namespace
from typing import Any

import pytest

from gristmill.engines.contract import FREE_TEXT, NUM_CANDIDATES, UNFINISHED, AnswerForm, Logprobs, Reply
from gristmill.engines.reasoning import ReasoningParser
from gristmill.engines.vllm import Engine
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.errors import UserError
from tests import engine
from tests.engine import SharedEngine
from tests.generators.test_teacher import asks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
RECIPE = load_table("package:reasoning")
QUESTIONS = [item["question"] for item in RECIPE["source"]["items"]]
SAMPLING = RECIPE["generator"]["sampling"]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
PLAIN = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{{ opening }}{% endif %}"""


@pytest.fixture
def thinker(shared_engine: SharedEngine) -> Iterator[Engine]:
    """The shared engine as the recipe `reasoning` sets it up."""
    real = shared_engine.engine
    before = (real.chat_template, real.template_args, real._parser)
    real.chat_template = RECIPE["generator"]["chat_template"]
    real._parser = parser_of(real, RECIPE["generator"]["reasoning_parser"])
    yield real
    real.chat_template, real.template_args, real._parser = before


def parser_of(real: Engine, name: str) -> ReasoningParser:
    return ReasoningParser(name, real._engine.vllm_config, {}, real._tokenizer)


def replies(
    shared: SharedEngine, form: AnswerForm = FREE_TEXT, num: int = 8, prompt: str | None = None, **sampling: Any
) -> list[Reply]:
    async def all_of() -> list[Reply]:
        calls = (
            shared.engine.chat(prompt or QUESTIONS[n % len(QUESTIONS)], {**SAMPLING, **sampling}, n, form)
            for n in range(num)
        )
        return list(await asyncio.gather(*calls))

    return shared.loop.run(all_of())


def test_thinking_is_parted_from_the_answer(shared_engine: SharedEngine, thinker: Engine) -> None:
    found = replies(shared_engine, AnswerForm(logprobs=True))
    finished = [reply for reply in found if reply.finish != UNFINISHED]
    assert len(finished) >= 4 and any(reply.text.strip().startswith("Answer:") for reply in finished)
    for reply in finished:
        assert reply.reasoning and "think>" not in reply.reasoning + reply.text
        assert 0 < reply.tokens_reasoning < reply.tokens_out
        assert (
            abs(reply.tokens_out - reply.tokens_reasoning - thinker.count_tokens(reply.text)) <= 2
        )  # the end of the reply
    plain = replies(shared_engine)
    assert [(reply.reasoning, reply.text) for reply in plain] == [(reply.reasoning, reply.text) for reply in found]
    for reply in replies(shared_engine, num=2, max_tokens=4):
        assert (reply.finish, reply.text, reply.tokens_reasoning) == (UNFINISHED, "", reply.tokens_out)
        assert reply.reasoning


def test_a_structure_binds_the_answer_after_the_thinking(shared_engine: SharedEngine, thinker: Engine) -> None:
    marked = RECIPE["generator"]["chat_template"].replace("</think>", "####").replace("<think>", "====")
    thinker.chat_template, thinker._parser = marked, parser_of(thinker, "hashes")
    found = [reply for reply in replies(shared_engine, AnswerForm(SCHEMA), 8) if reply.finish != UNFINISHED]
    assert len(found) >= 3
    for reply in found:
        assert reply.reasoning and "{" not in reply.reasoning and reply.tokens_reasoning > 4
        if reply.finish == "stop":
            assert set(json.loads(reply.text)) == {"answer"}
    assert any(reply.finish == "stop" for reply in found)


def test_where_the_prompt_closes_the_thinking_all_of_the_reply_is_bound(
    shared_engine: SharedEngine, thinker: Engine
) -> None:
    thinker.chat_template, thinker.template_args = PLAIN, {"opening": "<think>\n\n</think>\n\n"}
    for reply in replies(shared_engine, AnswerForm(SCHEMA), 3, prompt="What is 2 + 3? The mark is </think>."):
        assert reply.reasoning is None and reply.tokens_reasoning == 0
        assert reply.finish == "length" or set(json.loads(reply.text)) == {"answer"}
    thinker.template_args = {"opening": ""}
    prompt = "Do not think. Say hello. (Others write </think> here.)"
    (reply,) = replies(shared_engine, FREE_TEXT, 1, prompt=prompt, max_tokens=20)
    assert reply.text and reply.reasoning is None and reply.finish != UNFINISHED


@pytest.mark.parametrize(
    "form,pattern",
    [
        (AnswerForm(choice=("red", "green", "blue (or so)")), r"red|green|blue \(or so\)"),
        (AnswerForm(regex=r"(19|20)[0-9]{2}-[0-9]{2}"), r"(19|20)[0-9]{2}-[0-9]{2}"),
        (AnswerForm(grammar='root ::= "a" ("b" | "c") "d"'), "a[bc]d"),
        (AnswerForm(grammar='start: "a" ("b" | "c") "d"'), "a[bc]d"),
    ],
    ids=["choice", "regex", "gbnf", "lark"],
)
def test_every_structure_holds(shared_engine: SharedEngine, form: AnswerForm, pattern: str) -> None:
    shared_engine.engine.check_sampling(SAMPLING, form)
    for reply in replies(shared_engine, form, 4, max_tokens=40):
        assert re.fullmatch(pattern, reply.text), reply.text


@pytest.mark.parametrize("form", [AnswerForm(regex="(a"), AnswerForm(grammar="start: x")], ids=["regex", "grammar"])
def test_a_structure_that_the_engine_refuses_is_refused_when_it_opens(
    shared_engine: SharedEngine, form: AnswerForm
) -> None:
    with pytest.raises(UserError, match="sampling: "):
        shared_engine.engine.check_sampling(SAMPLING, form)


def test_logprobs_are_those_of_the_answer_and_change_no_text(shared_engine: SharedEngine) -> None:
    found = replies(shared_engine, AnswerForm(logprobs=True), 6, max_tokens=12)
    plain = replies(shared_engine, FREE_TEXT, 6, max_tokens=12)
    assert [reply.text for reply in found] == [reply.text for reply in plain]
    for reply in found:
        assert reply.logprobs is not None
        assert reply.logprobs.min <= reply.logprobs.mean <= 0 <= reply.logprobs.entropy <= math.log(NUM_CANDIDATES + 1)
    (sure,) = replies(shared_engine, AnswerForm(logprobs=True, choice=("Paris",)), 1, prompt="Say Paris.")
    assert sure.logprobs == Logprobs(0.0, 0.0, 0.0)  # the structure allows no other token


def test_rows_of_a_teacher_have_the_columns(shared_engine: SharedEngine, thinker: Engine) -> None:
    keys = {name: RECIPE["generator"][name] for name in ("reasoning_parser", "logprobs", "sampling", "chat_template")}
    made = engine.teacher(**keys)
    made._engine = thinker
    batch = asks([json.dumps({"text": question}) for question in QUESTIONS])
    rows = shared_engine.loop.run(made.make(batch)).to_pylist()
    living = [row for row in rows if row["reject"] is None]
    assert living
    for row in living:
        assert row["reasoning"] and row["tokens_reasoning"] < row["tokens_out"]
        assert row["logprob_mean"] < 0 if row["text"] else row["logprob_mean"] is None
    assert any(row["text"] for row in living)
    for row in rows:
        if row["reject"] is not None:
            assert row["reject"] == "generator:unfinished_reasoning" and row["text"] is None and row["reasoning"]


# Of vLLM's parsers, those whose marks are plain text to the tokenizer of the demo model.
IN_TEXT = ("deepseek_v4", "glm45", "kimi_k2", "minimax_m2", "nemotron_v3", "olmo3", "qwen3", "step3p5")
CASES = {  # opening and reply: reasoning, answer, whether the reasoning has an end
    ("\n", "<think>I add.\nSo 5.</think>\n\nIt is 5."): ("I add.\nSo 5.", "It is 5.", True),
    ("\n<think>\n", "I add.\nSo 5.</think>\n\nIt is 5."): ("I add.\nSo 5.", "It is 5.", True),
    ("\n<think>\n\n</think>\n\n", "It is 5."): (None, "It is 5.", True),
    ("\n", "<think>I add.</think>"): ("I add.", "", True),
    ("\n", "<think>I add.\nSo"): ("I add.\nSo", "", False),
    ("\n<think>\n", "I add.\nSo"): ("I add.\nSo", "", False),
}


@pytest.mark.parametrize("name", IN_TEXT)
def test_every_parser_parts_every_reply(shared_engine: SharedEngine, name: str) -> None:
    real = shared_engine.engine
    parser = parser_of(real, name)
    for (opening, text), (reasoning, answer, is_finished) in CASES.items():
        ids = real._tokenizer.encode(text)
        reply = parser.parted(Reply(text, "stop", 3, len(ids)), real._tokenizer.encode(opening), opening, ids)
        assert (reply.reasoning, reply.text.strip()) == (reasoning, answer), (opening, text)
        assert reply.finish == ("stop" if is_finished else UNFINISHED)
        num_answer = len(real._tokenizer.encode(answer)) if answer else 0
        assert len(ids) - num_answer - 2 <= reply.tokens_reasoning <= len(ids) - num_answer
        assert parser.call_args(opening)["reasoning_ended"] is ("</think>" in opening)


def test_a_parser_that_does_not_fit_the_model_is_one_line(shared_engine: SharedEngine) -> None:
    real = shared_engine.engine
    for name, words in (("deepseek_r1", "think start/end tokens"), ("mistral", "token"), ("openai_gptoss", "Harmony")):
        with pytest.raises(UserError, match=f"reasoning_parser '{name}' does not fit the model: .*{words}") as error:
            parser_of(real, name)
        assert "\n" not in str(error.value)


def test_a_reply_that_the_parser_cannot_read_costs_one_ask(shared_engine: SharedEngine) -> None:
    from gristmill.engines.errors import AskRefused

    parser = parser_of(shared_engine.engine, "qwen3")
    parser._class = lambda *args, **more: Namespace(reasoning_parser=None, parse=None, set_prompt_token_ids=len)
    with pytest.raises(AskRefused, match="unreadable_reasoning"):
        parser.parted(Reply("x"), [1], "", [1])
