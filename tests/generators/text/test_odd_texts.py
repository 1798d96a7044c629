"""Texts that a tokenizer or Arrow cannot take, and conversations at their edges."""

import asyncio
from typing import Any

import pyarrow as pa
import pytest

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.engines.vllm import Engine
from gristmill.generators.canned.generator import Canned, CannedSpec
from gristmill.generators.contract import GeneratedRow, fill
from gristmill.generators.text.contract import Ask, Session, Template
from gristmill.generators.text.registry import method_class
from gristmill.records.errors import UserError
from gristmill.records.ids import lot_seeds, row_id
from gristmill.records.schema import ask_schema
from gristmill.records.spec import build

HALF = "cut \ud83d off"


def asks(*texts: str) -> pa.RecordBatch:
    seeds = lot_seeds("1" * 32, 0, 0, len(texts))
    rows = [
        {"id": row_id("1" * 32, 0, 0, i), "lot": 0, "row": i, "seed": int(seeds[i]), "origin": "synthetic"}
        | {"generation": 0, "generator": "canned", "recipe": "r", "ask": text}
        for i, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=ask_schema()).combine_chunks().to_batches()[0]


def test_half_a_character_of_a_source_never_reaches_the_engine() -> None:
    assert Template("Say {text}").render({"text": HALF}) == "Say cut ? off"
    method = method_class("prompt")
    made = Canned(CannedSpec(num_words=10), method(build(method.Spec, {}, "method")))
    made.open()
    [row] = asyncio.run(made.make(asks('{"text": "cut \\ud83d off"}'))).to_pylist()
    assert row["prompt"] == "cut ? off" and row["reject"] is None


def test_what_the_tokenizer_cannot_take_costs_one_ask() -> None:
    class Picky:
        def apply_chat_template(self, messages: Any, **settings: Any) -> str:
            return str(messages[-1]["content"])

        def encode(self, text: str, **settings: Any) -> list[int]:
            if "\ud83d" in text:
                raise TypeError("TextEncodeInput must be str")
            return [1]

    engine = Engine("x")
    engine._engine, engine._tokenizer = object(), Picky()
    with pytest.raises(AskRefused) as refused:
        asyncio.run(engine.chat(HALF, {}, 1))
    assert refused.value.reason == "engine_refused"


def test_half_characters_in_lists_and_structs_of_a_payload_are_replaced() -> None:
    talk = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    payload = [pa.field("votes", pa.list_(pa.string())), pa.field("messages", talk)]
    made = GeneratedRow({"votes": [HALF, None], "messages": [{"role": "user", "content": HALF}]})
    [row] = fill(asks("{}"), payload, [made]).to_pylist()
    assert row["votes"] == ["cut ? off", None] and row["messages"][0]["content"] == "cut ? off"


class Says:
    """Answers call n with answer n."""

    synchronous = True

    def __init__(self, *answers: Any) -> None:
        self.answers, self.sampling = list(answers), list[dict[str, Any]]()

    async def chat(self, prompt: Any, sampling: Any, seed: int, form: Any = None) -> Reply:
        self.sampling.append(dict(sampling))
        answer = self.answers.pop(0)
        return answer if isinstance(answer, Reply) else Reply(answer, "stop", 3, 2)


def told(kind: str, table: dict[str, Any], fields: dict[str, Any], engine: Says) -> dict[str, Any]:
    method = method_class(kind)(build(method_class(kind).Spec, table, "method"))
    return asyncio.run(method.run(Ask("a" * 32, 3, fields), Session(engine, 3, {"temperature": 0.1})))


CUT = Reply("and then", "length", 3, 2)
LENGTHS = {"exchanges": 3, "min_exchanges": 3}


def test_a_conversation_that_has_filled_the_context_ends_with_what_it_has() -> None:
    said = Says("q1?", "a1", "q2?", "a2", "q3?", CUT)
    assert told("dialogue", {"exchanges": 9, "min_exchanges": 2}, {"topic": "tides"}, said)["exchanges"] == 2
    with pytest.raises(AskRefused) as refused:
        told("dialogue", LENGTHS, {"topic": "tides"}, Says("q1?", "a1", "q2?", CUT))
    assert refused.value.reason == "cut_assistant"


@pytest.mark.parametrize("end", ["THE END", "END.", "(done)", "", " "])
def test_an_end_that_could_never_be_heard_is_refused(end: str) -> None:
    with pytest.raises(UserError, match="end must be one word"):
        build(method_class("dialogue").Spec, {"end": end}, "method")


def test_magpie_stays_warm_where_only_the_output_is_cooled() -> None:
    engine = Says("How do tides come about?", "By the moon.")
    told("magpie", {"sampling": {"output": {"temperature": 0.0}}}, {}, engine)
    assert [s["temperature"] for s in engine.sampling] == [1.0, 0.0]
