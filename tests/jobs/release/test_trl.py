"""Dialogues of every shape reach TRL with every field, or are refused by their row; TRL's own utilities read them."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gristmill.engines.models import resolve
from gristmill.jobs.release.formats import find_format
from gristmill.records.errors import UserError
from gristmill.records.schema import IMAGE

JSON = pa.json_()
TEXTS = st.text(max_size=8)
NAMES = st.text("abc_", min_size=1, max_size=6)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.integers(-9, 9).map(lambda n: n / 4)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
CALL = pa.struct([
    *((name, pa.string()) for name in ("id", "type")),
    ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
])  # fmt: skip
FIELDS = ("reasoning_content", "thinking", "name", "tool_call_id", "odd field")
TYPED = pa.list_(pa.struct([
    *((name, pa.string()) for name in ("role", "content", *FIELDS)),
    *(("weight", pa.int32()), ("train", pa.bool_()), ("tool_calls", pa.list_(CALL))),
    ("audio", pa.struct([("id", pa.string())])),
]))  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    role = draw(st.sampled_from(["system", "developer", "user", "assistant", "tool"]))
    message: dict[str, Any] = {"role": role, "content": draw(TEXTS)}
    for name in draw(st.sets(st.sampled_from(FIELDS))):
        message[name] = draw(TEXTS)
    message |= draw(st.fixed_dictionaries({}, optional={"weight": st.integers(0, 9), "train": st.booleans()}))
    if draw(st.booleans()):
        message["audio"] = {"id": draw(TEXTS)}
    if role == "assistant" and draw(st.booleans()):
        functions = draw(st.lists(st.tuples(NAMES, OBJECTS, TEXTS), min_size=1, max_size=2))
        message["tool_calls"] = [
            {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments, number in functions
        ]
        message["content"] = draw(st.sampled_from([None, "", message["content"]]))
    return message


ROW = st.tuples(st.lists(messages(), min_size=1, max_size=4), st.none() | st.lists(st.just(TOOL) | OBJECTS, max_size=2))


def typed(dialogue: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the arguments of tool calls as JSON texts, as OpenAI has them, so that they fit one struct."""

    def call(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "function": {**one["function"], "arguments": json.dumps(one["function"]["arguments"])}}

    return [{**m, **({"tool_calls": [*map(call, m["tool_calls"])]} if "tool_calls" in m else {})} for m in dialogue]


def column(dialogues: list[list[dict[str, Any]]], is_json: bool) -> pa.Array:
    if is_json:
        return pa.array([json.dumps(dialogue) for dialogue in dialogues], pa.string()).cast(JSON)
    return pa.array([typed(dialogue) for dialogue in dialogues], TYPED)


def loaded(table: pa.Table, name: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of the table in a format, as `datasets` loads them from Parquet."""
    row_format = find_format(name, table.schema)
    assert row_format is not None
    pq.write_table(row_format.convert(table), folder / "rows.parquet")
    path = str(folder / "rows.parquet")
    return list(datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(folder / "hf")))


def ids(num: int) -> list[str]:
    return [f"{i:032x}" for i in range(num)]


def without_nulls(dialogue: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the nulls that columns of structs add; those inside of JSON stay."""
    return [{key: value for key, value in message.items() if value is not None} for message in dialogue]


@given(rows=st.lists(ROW, min_size=1, max_size=4), is_json=st.booleans(), as_text=st.booleans())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
def test_no_field_of_a_message_is_lost(
    rows: list[Any], is_json: bool, as_text: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dialogues, tools = [dialogue for dialogue, _ in rows], [one for _, one in rows]
    texts = [None if one is None else json.dumps(one) for one in tools]
    lists = [None if one is None else [json.dumps(tool) for tool in one] for one in tools]
    beside = pa.array(texts, pa.string()) if as_text else pa.array(lists, pa.list_(pa.string()))
    answers = [[{"role": "assistant", "content": str(at)}] for at in range(len(rows))]
    whole = {"id": ids(len(rows)), "tools": beside}
    talk, answer = column(dialogues, is_json), column(answers, is_json)
    tables = {
        "messages": {"messages": talk},
        "prompt-completion": {"prompt": talk, "completion": answer},
        "preference": {"prompt": answer, "chosen": talk, "rejected": answer},
    }
    for name, columns in tables.items():
        folder = tmp_path_factory.mktemp(name)
        for row, dialogue, expected in zip(loaded(pa.table({**whole, **columns}), name, folder), dialogues, tools):
            target = {"messages": "messages", "prompt-completion": "prompt", "preference": "chosen"}[name]
            assert without_nulls(row[target]) == without_nulls(dialogue)
            assert row["tools"] == expected
            assert next(iter(row)) == "id" and len(row) == len(columns) + 2


PLAIN = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
CALLED = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"city": "Oslo", "days": None}}}
USED = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [CALLED]},
    {"role": "tool", "content": "rain", "tool_call_id": "1", "name": "f"},
    {"role": "assistant", "content": "It rains."},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve("package:smollm2"))


def test_trl_reads_every_format(tokenizer: Any, tmp_path: Path) -> None:
    import trl

    texts = {name: ["one ", "two"] for name in ("instruction", "output", "text", "prompt", "chosen", "rejected")}
    dialogues = {"messages": column([PLAIN, USED], False), "tools": [json.dumps([TOOL]), None]}
    plain = column([PLAIN, PLAIN[1:]], False)
    others = column([USED[:1] + PLAIN[2:], PLAIN[:2] + USED[3:]], False)
    cases = [
        ("messages", {"instruction": texts["instruction"], "output": texts["output"]}, ["one "]),
        ("messages", {"messages": plain}, ["a"]),
        ("messages", dialogues, ["Oslo", "rain", "It rains."]),
        ("preference", {n: texts[n] for n in ("prompt", "chosen", "rejected")}, ["one "]),
        ("preference", {"chosen": column([USED, PLAIN], False), "rejected": others}, ["Oslo"]),
        ("prompt-completion", {"prompt": ["q", "r"], "completion": plain.slice(0, 2)}, ["q"]),
        ("prompt-completion", {"prompt": texts["prompt"], "text": texts["text"]}, []),
        ("text", {"text": texts["text"]}, []),
    ]  # fmt: skip
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    for number, (name, columns, words) in enumerate(cases):
        (folder := tmp_path / str(number)).mkdir()
        rows = loaded(pa.table({"id": ids(2), **columns}), name, folder)
        for row in rows:
            if not words:
                assert not trl.is_conversational(row)
                continue
            assert trl.is_conversational(row) and trl.maybe_extract_prompt(dict(row))
            own = {key: value for key, value in row.items() if key not in ("id", "tools")}
            for chat_template in (None, template.read_text()):
                if chat_template is None and "tool" in str(row):
                    continue  # the template of the small model takes no tools
                shown = trl.apply_chat_template(own, tokenizer, row.get("tools"), chat_template=chat_template)
                assert all(isinstance(text, str) and text for key, text in shown.items())
        whole = "".join(
            text
            for row in rows
            for text in trl.apply_chat_template(
                {key: value for key, value in row.items() if key not in ("id", "tools")},
                tokenizer,
                row.get("tools"),
                chat_template=template.read_text(),
            ).values()
        ) if words else ""  # fmt: skip
        assert all(word in whole for word in words)


def test_sharegpt_becomes_messages(tmp_path: Path) -> None:
    call = '{"name": "f", "arguments": {"a": 1}}'
    said = [("system", "s"), ("human", "h"), ("function_call", call), ("observation", "o"), ("gpt", "g")]
    said += [("function_call", f"[{call}, {call}]"), ("tool", ""), ("user", "u"), ("assistant", "")]
    talk = [{"from": role, "value": value, "weight": at} for at, (role, value) in enumerate(said)]
    tools = '[{"name": "f", "parameters": {"type": "object", "default": null}}]'
    table = pa.table({"id": ids(1), "conversations": [talk], "tools": [tools], "system": ["left out"]})
    (row,) = loaded(table, "messages", tmp_path)
    calls = {"type": "function", "function": json.loads(call)}
    expected = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "h"},
        {"role": "assistant", "tool_calls": [calls]},
        {"role": "tool", "content": "o"},
        {"role": "assistant", "content": "g"},
        {"role": "assistant", "tool_calls": [calls, calls]},
        {"role": "tool", "content": ""},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": ""},
    ]
    assert without_nulls(row["messages"]) == [{**message, "weight": at} for at, message in enumerate(expected)]
    assert row["tools"] == json.loads(tools)
    # as a preference, with answers of one message
    sides = {side: [{"from": "gpt", "value": side}] for side in ("chosen", "rejected")}
    for column_of_prompt in ("prompt", "conversations"):
        pair = pa.table({"id": ids(1), column_of_prompt: [talk[:2]], **sides})
        (row,) = loaded(pair, "preference", tmp_path)
        assert [message["content"] for message in row["prompt"]] == ["s", "h"]
        assert [(m["role"], m["content"]) for m in row["rejected"]] == [("assistant", "rejected")]


def test_what_openai_called_functions_becomes_tools(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "q", "function_call": None},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": null}'}},
        {"role": "function", "content": "1", "function_call": None, "name": "f"},
    ]
    table = pa.table({"id": ids(1), "messages": [talk], "functions": [[{"name": "f"}]]})
    (row,) = loaded(table, "messages", tmp_path)
    called = {"type": "function", "function": {"name": "f", "arguments": {"a": None}}}
    assert without_nulls(row["messages"])[1:] == [
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "content": "1", "name": "f"},
    ]
    assert row["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_parts_and_images_are_carried(tmp_path: Path) -> None:
    picture = {"bytes": b"\x89PNG", "path": None}
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "what?"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "this"}]}]
    columns = {"images": pa.array([[picture]], pa.list_(IMAGE)), "chat_template_kwargs": ['{"think": null}']}
    table = pa.table({"id": ids(1), "messages": [talk], **columns})
    row_format = find_format("messages", table.schema)
    assert row_format is not None
    converted = row_format.convert(table)
    features = datasets.Features.from_arrow_schema(converted.schema)
    assert features["images"] == datasets.List(datasets.Image())
    assert features["messages"].feature["content"] == datasets.List(datasets.Json())
    (row,) = converted.to_pylist()
    assert row["images"] == [picture] and json.loads(row["chat_template_kwargs"]) == {"think": None}
    shown = [[json.loads(part) for part in message["content"]] for message in row["messages"]]
    assert shown == [[{"type": "image"}, parts[1]], [{"type": "text", "text": "this"}]]
    # a text beside messages of parts becomes a part
    mixed = pa.table({"id": ids(1), "prompt": [talk[:1]], "completion": ["this"]})
    (row,) = loaded(mixed, "prompt-completion", tmp_path)
    assert row["completion"] == [{"role": "assistant", "content": [{"type": "text", "text": "this"}]}]


def test_a_prompt_inside_of_the_answers_is_cut_off() -> None:
    import trl

    question, more = {"role": "user", "content": "q"}, {"role": "user", "content": "more"}
    yes, no = ({"role": "assistant", "content": text} for text in ("yes", "no"))
    cases: list[tuple[Any, list[Any], list[Any], int]] = [
        (None, [question, yes], [question, no], 1),
        ("q", [question, yes], [question, no], 1),
        ([question], [question, yes], [question, no], 1),
        (None, [question, yes, more, yes], [question, yes, more, no], 3),
        (None, [question, yes], [question, yes], 1),
    ]
    for prompt, chosen, rejected, shared in cases:
        prompts = {} if prompt is None else {"prompt": [prompt]}
        table = pa.table({"id": ids(1), "chosen": [chosen], "rejected": [rejected], **prompts})
        row_format = find_format("preference", table.schema)
        assert row_format is not None
        (row,) = row_format.convert(table).to_pylist()
        assert (row["prompt"], row["chosen"]) == (chosen[:shared], chosen[shared:])
        assert row["rejected"] == rejected[shared:]
        if chosen != rejected and prompt is None:
            extracted = trl.extract_prompt({"chosen": chosen, "rejected": rejected})
            assert {name: row[name] for name in extracted} == extracted
    explicit = pa.table({"id": ids(1), "prompt": ["q"], "chosen": [[yes, more, yes]], "rejected": [[yes, more, no]]})
    (row,) = find_format("preference", explicit.schema).convert(explicit).to_pylist()  # type: ignore[union-attr]
    assert row["prompt"] == [question] and row["chosen"] == [yes, more, yes]


def refused(columns: dict[str, Any], name: str) -> str:
    table = pa.table({"id": ids(2), **columns})
    row_format = find_format(name, table.schema)
    assert row_format is not None
    with pytest.raises(UserError) as error:
        row_format.convert(table)
    return str(error.value)


OK, OTHER = [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]
OK_TEXT, CALLS = json.dumps(OK), [None, "[{}]"]


@pytest.mark.parametrize(
    ("columns", "name", "message"),
    [
        ({"messages": [OK, [{"role": "assistant", "content": None}]]}, "messages", "'messages' has a null content"),
        ({"messages": [OK, [{"role": None, "content": "a"}]]}, "messages", "'messages' has a null role"),
        ({"messages": [OK, [None]]}, "messages", "'messages' has a null message"),
        ({"messages": [OK, None]}, "messages", "'messages' holds no message"),
        ({"messages": [OK_TEXT, "hello"]}, "messages", "has a value that is no valid JSON"),
        ({"messages": [OK_TEXT, '[{"role":"a","role":"b"}]']}, "messages", "has a value that is no valid JSON"),
        ({"messages": [OK_TEXT, '["a"]']}, "messages", "has a message that is no valid"),
        ({"messages": [OK, OK], "tools": ["[]", "hammer"]}, "messages", "'tools' has tools that are no valid JSON"),
        ({"messages": [OK, OK], "tools": ["[]", "[1]"]}, "messages", "'tools' has tools that are no objects"),
        ({"messages": [OK, OK], "tools": CALLS, "functions": CALLS}, "messages", "both have values"),
        (
            {"conversations": [[{"from": "gpt", "value": "a"}], [{"from": "narrator", "value": "a"}]]},
            "messages",
            r"has a message from 'narrator' \(known: system, human",
        ),
        (
            {"conversations": [[{"from": "gpt", "value": "a"}], [{"from": "function_call", "value": "f(1)"}]]},
            "messages",
            "has tool_calls that are no valid JSON",
        ),
        *(
            ({"messages": [OK_TEXT, json.dumps([{"role": "assistant", "tool_calls": [call]}])]}, "messages", text)
            for call, text in [
                ({"function": {"arguments": {}}}, "without the name of a function"),
                ({"function": {"name": "f", "arguments": "{"}}, "arguments of a tool call that are no valid JSON"),
                ({"function": {"name": "f", "arguments": "[1]"}}, "arguments of a tool call that are no object"),
                ({"function": {"name": "f", "arguments": {"a": 2**64}}}, "an integer of more than 64 bits"),
                ({"function": {"name": "f", "arguments": {"a": "\ud800"}}}, "a character that JSON cannot hold"),
                (7, "has tool_calls that are no objects"),
            ]
        ),
        (
            {"messages": [[{"role": "user", "content": [{"type": "image", "image": b"a"}]}]] * 2},
            "messages",
            "has a value .bytes, a time. that JSON cannot hold",
        ),
        ({"instruction": ["a", "b"], "output": ["a", "b"], "tools": CALLS}, "alpaca", "'tools' has no place"),
        ({"prompt": ["a", "b"], "text": ["a", "b"], "tools": CALLS}, "prompt-completion", "'tools' has no place"),
        ({"chosen": [OK * 2, OK], "rejected": [OK * 2, OTHER]}, "preference", "begin differently"),
        ({"prompt": ["a", "b"], **dict.fromkeys(("chosen", "rejected"), [OK * 2] * 2)}, "preference", "another prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_by_its_row(columns: dict[str, Any], name: str, message: str) -> None:
    text = refused(columns, name)
    assert re.search(message, text) and "; pack as rows, or reject these rows in the recipe" in text
    assert text.startswith(f"row {'0' * 31}") and f"so it cannot become {name}" in text


@pytest.mark.nightly
def test_trainers_of_trl_take_a_step_on_every_format(tokenizer: Any, tmp_path: Path) -> None:
    import transformers
    import trl

    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    texts = {name: ["one ", "two"] for name in ("prompt", "text", "chosen", "rejected")}
    talks = {"messages": column([USED, PLAIN], False), "tools": [json.dumps([TOOL]), None]}
    pairs = {"chosen": column([USED, USED], False), "rejected": column([USED[:1] + PLAIN[2:]] * 2, False)}
    cases = [
        ("messages", talks, "SFT"),
        ("prompt-completion", texts, "SFT"),
        ("prompt-completion", {"prompt": ["q", "r"], "completion": column([PLAIN[2:]] * 2, False)}, "SFT"),
        ("text", texts, "SFT"),
        ("preference", texts, "DPO"),
        ("preference", {**pairs, "tools": talks["tools"]}, "DPO"),
    ]
    for number, (name, columns, kind) in enumerate(cases):
        (folder := tmp_path / str(number)).mkdir()
        rows = datasets.Dataset.from_list(
            loaded(pa.table({"id": ids(2), **columns}), name, folder), on_mixed_types="use_json"
        )
        options = {"output_dir": str(folder), "max_steps": 1, "report_to": [], "use_cpu": True, "bf16": False}
        args = getattr(trl, f"{kind}Config")(**options, per_device_train_batch_size=2, save_strategy="no")
        trainer = getattr(trl, f"{kind}Trainer")(
            str(tmp_path / "model"), args=args, train_dataset=rows, processing_class=tokenizer
        )
        assert trainer.train().training_loss > 0


THINKING = """{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>\
{% endif %}{{ m.content }}{% endfor %}"""


def test_the_reasoning_of_a_row_is_in_its_last_answer(tmp_path: Path) -> None:
    import trl
    from transformers import AutoTokenizer

    talk = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]] * 2
    pairs = {"instruction": ["q", "q"], "output": ["a", "a"]}
    for columns in (pairs, {"messages": talk}):
        table = pa.table({"id": ids(2), **columns, "reasoning": pa.array(["I think.", None], pa.string())})
        thinks, plain = loaded(table, "messages", tmp_path)
        assert without_nulls(thinks["messages"]) == [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "reasoning_content": "I think."},
        ]
        assert without_nulls(plain["messages"]) == talk[0]
        left_out = find_format("messages", table.schema, has_reasoning=False)
        assert left_out is not None and "reasoning" not in left_out.reads
        assert left_out.convert(table).column("messages").to_pylist() == talk
    tokenizer = AutoTokenizer.from_pretrained(resolve("package:smollm2"))
    tokenizer.chat_template = THINKING
    assert trl.is_conversational(thinks)
    assert trl.apply_chat_template(thinks, tokenizer)["text"] == "<user>q<assistant><think>I think.</think>a"
    assert trl.apply_chat_template(plain, tokenizer)["text"] == "<user>q<assistant>a"


def test_a_message_that_states_its_reasoning_keeps_it() -> None:
    answer = {"role": "assistant", "content": "a", "reasoning_content": "mine"}
    talk = [[{"role": "user", "content": "q"}, answer], [{"role": "user", "content": "q"}]]
    table = pa.table({"id": ids(2), "messages": talk, "reasoning": ["other", "no answer to hold it"]})
    row_format = find_format("messages", table.schema)
    assert row_format is not None
    rows = [without_nulls(row["messages"]) for row in row_format.convert(table).to_pylist()]
    assert rows == [talk[0], talk[1]]
    left_out = find_format("messages", table.schema, has_reasoning=False)
    assert left_out is not None
    plain = [[{name: m[name] for name in ("role", "content")} for m in one] for one in talk]
    assert left_out.convert(table).column("messages").to_pylist() == plain
    as_json = table.set_column(1, "messages", pa.array(list(map(json.dumps, talk)), pa.string()).cast(JSON))
    left_out = find_format("messages", as_json.schema, has_reasoning=False)
    assert left_out is not None
    rows = left_out.convert(as_json).column("messages").to_pylist()
    assert [[json.loads(m) if isinstance(m, str) else m for m in one] for one in rows] == plain
