"""Rows of agents and of single calls, packed as messages: TRL's utilities and chat templates read calls and results."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.engines.models import resolve
from gristmill.generators.contract import Generator
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.release.formats import find_format
from gristmill.records.lots import asks
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT


def rows_of(recipe: str, folder: Path, *settings: str) -> pa.Table:
    """The first lot of a shipped recipe, without the rows that its method refuses."""
    compiled = compile_recipe(load(str(ROOT / "recipes" / f"{recipe}.toml"), settings))
    generator: Generator = compiled.generator
    generator.open()
    try:
        batch = asyncio.run(generator.make(asks(compiled.plan, compiled.ask_source(open_store(str(folder))), 0)))
    finally:
        generator.close()
    table = pa.Table.from_batches([batch])
    return table.filter(pa.compute.is_null(table.column("reject")))


def packed(table: pa.Table, folder: Path) -> list[dict[str, Any]]:
    import datasets

    row_format = find_format("messages", table.schema)
    assert row_format is not None
    pq.write_table(row_format.convert(table), folder / "rows.parquet")
    path = str(folder / "rows.parquet")
    return list(datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(folder / "hf")))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    import trl
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("package:smollm2"))
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    return tokenizer


CALL = '<tool_call>{"name": "late_fee", "arguments": {"days_late": 5}}</tool_call>'
ANSWERS = json.dumps(CALL)
SINGLE = (
    'generator={kind = "canned"}',
    f'generator.answers=[{{when = "library", say = [{ANSWERS}]}}]',
    "method.calls=native",
    "method.must_match=true",
    "method.given_question={text} at a library",
)


@pytest.mark.parametrize(("recipe", "settings"), [("agent-scripted", ()), ("tool-calls", SINGLE)])
def test_trl_reads_calls_results_and_tools(
    recipe: str, settings: tuple[str, ...], tokenizer: Any, tmp_path: Path
) -> None:
    import trl

    table = rows_of(recipe, tmp_path, *settings)
    assert table.num_rows > 2
    rows = packed(table, tmp_path)
    wrong = num_calls = 0
    for row, source in zip(rows, table.to_pylist()):
        assert trl.is_conversational(row)
        calls = [call for message in row["messages"] for call in message["tool_calls"] or ()]
        results = [message for message in row["messages"] if message["role"] == "tool"]
        assert [call["id"] for call in calls] == [result["tool_call_id"] for result in results]
        num_calls += len(calls)
        assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
        assert row["tools"] == json.loads(source["tools"])
        wrong += any(result["content"].startswith("Error: ") for result in results)
        text = trl.apply_chat_template({"messages": row["messages"]}, tokenizer, tools=row["tools"])["text"]
        assert text.count("<tool_call>") >= len(calls) and text.count("<tool_response>") >= len(results)
        assert all(result["content"] in text for result in results)
    assert num_calls > len(rows) / 2
    assert wrong or recipe != "agent-scripted", "trajectories with wrong calls are packed as well"
