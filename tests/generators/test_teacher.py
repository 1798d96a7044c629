"""The real engine with the demo teacher."""

import asyncio
import json

import pyarrow as pa
import pytest

from gristmill.engines.contract import AnswerForm
from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.records.ids import lot_seeds, row_id
from gristmill.records.schema import ask_schema
from tests import engine

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
PRINT = "1" * 32
TOPICS = ("tides", "bread", "bridges", "the moon", "maps", "glass", "bees", "trains")
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "level": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["title", "level"],
    "additionalProperties": False,
}


def asks(texts, lot=0):
    seeds = lot_seeds(PRINT, 0, lot, len(texts))
    rows = [
        {
            **{"id": row_id(PRINT, 0, lot, i), "lot": lot, "row": i, "seed": int(seeds[i]), "origin": "synthetic"},
            **{"generation": 0, "generator": "teacher", "recipe": "r", "ask": text},
        }
        for i, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=ask_schema()).combine_chunks().to_batches()[0]


@pytest.fixture(scope="module")
def engine_loop(shared_engine):
    return shared_engine.loop


@pytest.fixture(scope="module")
def teacher(shared_engine):
    made = engine.teacher(sampling={"temperature": 0.8, "min_p": 0.05, "max_tokens": 24})
    made._engine = shared_engine.engine
    return made


@pytest.fixture(scope="module")
def make(engine_loop, teacher):
    return lambda batch: engine_loop.run(teacher.make(batch))


def questions(num_rows):
    return [json.dumps({"text": f"Tell me about {TOPICS[i % len(TOPICS)]}."}) for i in range(num_rows)]


@pytest.fixture(scope="module")
def together(make):
    return make(asks(questions(16)))


def test_rows_are_filled(together):
    rows = together.to_pylist()
    assert all(r["text"] and r["reject"] is None and r["tokens_in"] > 10 and 0 < r["tokens_out"] <= 24 for r in rows)
    assert {r["finish"] for r in rows} <= {"stop", "length"}


def test_the_same_text_alone_and_in_any_batch(make, together):
    batch = asks(questions(16))
    for start, length in ((3, 1), (12, 1), (0, 2), (5, 9)):
        assert make(batch.slice(start, length)).equals(together.slice(start, length))


def test_the_seed_of_the_row_makes_the_difference(make):
    texts = make(asks([json.dumps({"text": "Tell me a story."})] * 6)).column("text").to_pylist()
    assert len(set(texts)) == 6


def test_bad_asks_cost_one_row_each(make, together):
    texts = questions(16)
    texts[1] = json.dumps({"text": "word " * 3000})
    texts[2] = "{broken"
    rows = make(asks(texts)).to_pylist()
    assert rows[1]["reject"] == "generator:context_length" and rows[1]["text"] is None
    assert rows[2]["reject"] == "generator:malformed_ask"
    whole = together.to_pylist()
    assert [r for i, r in enumerate(rows) if i not in (1, 2)] == [r for i, r in enumerate(whole) if i not in (1, 2)]


def test_structured_output_parses(engine_loop, teacher):
    async def ask():
        sampling = {"temperature": 0.8, "max_tokens": 80}
        prompt = "Give a book's title and its level from 1 to 5, as JSON."
        return await asyncio.gather(
            *(teacher._engine.chat(prompt, sampling, seed, AnswerForm(SCHEMA)) for seed in range(4))
        )

    for reply in engine_loop.run(ask()):
        answer = json.loads(reply.text)
        assert reply.finish == "stop" and set(answer) == {"title", "level"} and 1 <= answer["level"] <= 5


def test_what_the_engine_refuses_is_one_ask(engine_loop, teacher):
    with pytest.raises(AskRefused) as refused:
        engine_loop.run(teacher._engine.chat("hello", {"temperature": -1.0}, 1))
    assert refused.value.reason == "engine_refused"
    assert engine_loop.run(teacher._engine.chat("hello", {"max_tokens": 2}, 1)).tokens_out == 2


@pytest.mark.kills_engine
def test_a_dead_engine_is_told_from_a_bad_ask(engine_loop, teacher, shared_engine):

    async def killed():
        asking = asyncio.ensure_future(teacher._engine.chat("hello", {"max_tokens": 900, "ignore_eos": True}, 1))
        await asyncio.sleep(1)
        for process in teacher._engine._engine.engine_core.resources.engine_manager.processes:
            process.kill()
        return await asking

    with pytest.raises(EngineDead):
        engine_loop.run(asyncio.wait_for(killed(), 60))
    teacher.close()
    shared_engine.close()
    with pytest.raises(EngineDead):
        engine_loop.run(teacher.make(asks(questions(1))))
