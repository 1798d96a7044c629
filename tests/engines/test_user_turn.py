"""Chat templates cut at the user's turn, as models of several families write them."""

import asyncio
from types import SimpleNamespace

import pytest

from gristmill.engines.errors import AskRefused
from gristmill.engines.user_turn import USER_TURN, is_users, with_end
from gristmill.engines.vllm import Engine
from gristmill.generators.teacher import Teacher, TeacherSpec
from gristmill.generators.text.registry import method_class
from gristmill.records.errors import UserError
from gristmill.records.spec import build

CHATML = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] | trim }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA3 = """{{ '<s>' }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>

{{ m['content'] }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
INST = """{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}\
{{ m['content'] }}</s>{% endif %}{% endfor %}"""
VICUNA = """{% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }} {% else %}\
{{ m['role'] | upper }}: {{ m['content'] }}</s>{% endif %}{% endfor %}ASSISTANT:"""
ALPACA = """{% for m in messages %}### Instruction:
{{ m['content'] }}

### Response:
{% endfor %}"""
BARE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes as tokens, and the special tokens of several families."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=SPECIAL)


class Vllm:
    """In the place of the engine proper: remembers what it was sent, writes "Why?"."""

    def __init__(self):
        self.ids, self.params = [], []

    async def generate(self, prompt, params, number, **settings):
        self.ids.append(prompt["prompt_token_ids"])
        self.params.append(params)
        yield SimpleNamespace(outputs=[SimpleNamespace(text="Why?", finish_reason="stop", token_ids=[1, 2])])


def engine_with(tokenizer, template, **given):
    engine = Engine("none", chat_template=template, **given)
    engine._tokenizer, engine._engine, engine.max_model_len = tokenizer, Vllm(), 500
    engine._sampling_class, engine._final = dict, None
    return engine


@pytest.mark.parametrize(
    ("template", "sent", "ends"),
    [
        (CHATML, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n", "<|im_end|>"),
        (
            LLAMA3,
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|eot_id|>",
        ),
        (INST, "<s>Be kind.</s>[INST]", ["[/INST]"]),
        (VICUNA, "SYSTEM: Be kind.</s>USER:", ["ASSISTANT:"]),
        (ALPACA, "### Instruction:\nBe kind.\n\n### Response:\n### Instruction:\n", ["### Response:"]),
        (BARE, "Be kind.", None),
    ],
    ids=["chatml", "llama3", "inst", "vicuna", "alpaca", "bare"],
)
def test_any_template_is_cut_where_the_user_would_write(tokenizer, template, sent, ends):
    engine = engine_with(tokenizer, template)
    prompt = [{"role": "system", "content": "Be kind."}, USER_TURN]
    reply = asyncio.run(engine.chat(prompt, {"temperature": 1.0, "stop": "###"}, 7))
    assert reply.text == "Why?" and tokenizer.decode(engine._engine.ids[0]) == sent
    assert reply.tokens_in == len(engine._engine.ids[0]) and engine.encode(prompt) == engine._engine.ids[0]
    params = engine._engine.params[0]
    if isinstance(ends, str):
        assert params["stop_token_ids"] == [tokenizer.convert_tokens_to_ids(ends)] and params["stop"] == "###"
    else:
        assert params["stop"] == ["###", *(ends or [])] if ends else params["stop"] == "###"
        assert "stop_token_ids" not in params


def test_an_empty_message_of_a_user_is_still_a_message(tokenizer):
    assert is_users([USER_TURN]) and is_users([{"role": "system", "content": "x"}, {"role": "user"}])
    for prompt in ("", [], [{"role": "user", "content": ""}], [{"role": "assistant"}]):
        assert not is_users(prompt)
    engine = engine_with(tokenizer, CHATML)
    asyncio.run(engine.chat("", {}, 7))
    assert tokenizer.decode(engine._engine.ids[0]).endswith("<|im_start|>assistant\n")
    assert "stop_token_ids" not in engine._engine.params[0]


def test_models_without_a_usable_template_are_refused(tokenizer):
    engine_with(tokenizer, CHATML).check_user_turn()
    hiding = "{{ messages[0]['role'] }}"
    for template, says in ((hiding, "does not show"), (None, "template"), ("{{ 1 / 0 }}", "zero")):
        with pytest.raises(UserError, match=says):
            engine_with(tokenizer, template).check_user_turn()
    base = engine_with(tokenizer, CHATML, chat=False)
    with pytest.raises(AskRefused, match="no_chat_template"):
        base.encode([USER_TURN])
    magpie = method_class("magpie")
    teacher = Teacher(build(TeacherSpec, {"model": "./none", "chat": False}, "generator"), magpie(magpie.Spec()))
    with pytest.raises(UserError, match="chat = true"):
        teacher.check()


def test_stops_are_added_to_the_recipes_own():
    assert with_end({"stop": ["a"]}, {"stop": ["b"]}) == {"stop": ["a", "b"]}
    assert with_end({"stop_token_ids": None}, {"stop_token_ids": [3]}) == {"stop_token_ids": [3]}
    given = {"temperature": 1.0}
    assert with_end(given, {}) == given and with_end(given, {}) is not given


def test_a_template_is_told_the_same_day_on_every_day(tokenizer):
    engine = Engine("x", chat_template="{{ strftime_now('%d %b %Y') }}: {{ messages[0]['content'] }}")
    engine._tokenizer = tokenizer
    assert engine._prompts.render([{"role": "user", "content": "hello"}]) == "26 Jul 2024: hello"
