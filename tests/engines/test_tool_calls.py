"""Tool calls on their way through an engine: the chat template shows tools and results, vLLM's parser finds calls."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import AnswerForm
from gristmill.engines.models import resolve
from gristmill.engines.tool_calls import ToolParser, hermes_calls
from gristmill.engines.vllm import Engine
from gristmill.records.errors import UserError
from tests.engine import SharedEngine

# ChatML with tools in the way of Hermes 2 Pro, for a model whose own template knows none.
TEMPLATE = """{%- if tools %}<|im_start|>system
Tools, one JSON object per line:
{%- for tool in tools %}
{{ tool['function'] | tojson }}
{%- endfor %}
A call: <tool_call>{"name": ..., "arguments": {...}}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}
{%- for call in message['tool_calls'] or [] %}
<tool_call>{{ {'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": PARAMETERS}}


def call(city: Any) -> str:
    return f"<tool_call>{json.dumps({'name': 'weather', 'arguments': {'city': city}})}</tool_call>"


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine with a tokenizer and no model behind it."""
    from transformers import AutoTokenizer

    engine = Engine("package:smollm2", chat_template=TEMPLATE)
    engine._tokenizer = AutoTokenizer.from_pretrained(resolve("package:smollm2"))
    engine.use_tool_parser("hermes")
    return engine


def test_the_prompt_shows_tools_calls_and_results(engine: Engine) -> None:
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": function}]},
        {"role": "tool", "content": "It rains.", "tool_call_id": "1", "name": "weather"},
    ]
    text = engine._tokenizer.decode(engine.encode(messages, [TOOL]))
    assert json.dumps(TOOL["function"]) in text and text.endswith("<|im_start|>assistant\n")
    assert call("Oslo") in text and "<|im_start|>tool\nIt rains.<|im_end|>" in text
    assert "weather" not in engine._tokenizer.decode(engine.encode("Rain?"))


@pytest.mark.parametrize("parts", [("vllm",), ("written",)])
def test_calls_are_taken_out_of_an_answer(engine: Engine, parts: tuple[str, ...]) -> None:
    parser = ToolParser("hermes", engine._tokenizer, engine._prompts.render)
    part = (lambda text: parser.part(text, [TOOL])) if parts == ("vllm",) else hermes_calls
    text, calls = part(f"Two.\n{call('Oslo')}\n{call('Bergen')}")
    assert text == "Two." and [json.loads(c.arguments) for c in calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
    assert {c.name for c in calls} == {"weather"} and len({c.id for c in calls}) == 2
    assert part("No call.") == ("No call.", ())
    for broken in ("<tool_call>{weather}</tool_call>", '<tool_call>{"name": "weather", "argu', "<tool_call>7"):
        text, calls = part(f"Now. {broken}")
        assert text == "Now." and [c.name for c in calls] == [""] and calls[0].arguments


@given(text=st.text() | st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "{", '"', call("Oslo")])).map("".join))
def test_no_answer_breaks_the_parsers(engine: Engine, text: str) -> None:
    parser = ToolParser("hermes", engine._tokenizer, engine._prompts.render)
    for words, calls in (parser.part(text, [TOOL]), hermes_calls(text)):
        assert isinstance(words, str) and all(isinstance(c.arguments, str) for c in calls)
        assert bool(calls) == ("<tool_call>" in text)


def test_what_cannot_call_tools_is_refused_in_a_line(engine: Engine) -> None:
    with pytest.raises(UserError, match="no parser 'hermess' .did you mean 'hermes'"):
        engine.use_tool_parser("hermess")
    plain = Engine("package:smollm2")
    plain._tokenizer = engine._tokenizer
    with pytest.raises(UserError, match="chat template does not show tools to the model; give a chat_template"):
        plain.use_tool_parser("hermes")


@pytest.mark.vllm
def test_a_call_of_the_real_engine(shared_engine: SharedEngine) -> None:
    """The demo model was not trained on tools, so a regular expression holds it to the format of a call."""
    engine = shared_engine.engine
    before = engine.chat_template
    city = "(Oslo|Bergen|Rome)"
    regex = f'Sure\\. <tool_call>\\{{"name": "weather", "arguments": \\{{"city": "{city}"\\}}\\}}</tool_call>'
    ask, settings = [{"role": "user", "content": "Is there rain in Oslo?"}], {"max_tokens": 60, "temperature": 0.0}
    try:
        engine.chat_template = TEMPLATE
        engine.use_tool_parser("hermes")

        async def replies() -> list[Any]:
            forms = AnswerForm(regex=regex, tools=(TOOL,)), AnswerForm(regex=regex)
            return [await engine.chat(ask, settings, 1, form) for form in forms]

        called, plain = shared_engine.loop.run(replies())
    finally:
        engine.chat_template = before
        engine.use_tool_parser(None)
    assert called.text == "Sure." and called.finish == "tool_calls"
    assert [call.name for call in called.tool_calls] == ["weather"]
    assert json.loads(called.tool_calls[0].arguments)["city"] in ("Oslo", "Bergen", "Rome")
    assert called.tokens_in > plain.tokens_in and plain.finish == "stop"
    assert plain.text.startswith("Sure. <tool_call>") and not plain.tool_calls
