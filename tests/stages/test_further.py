"""Benchmark items and personal data in the reasoning reject a row, with the reasoning as the evidence."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.schema import REASONING, REJECT, TOKENS_REASONING
from gristmill.records.spec import build
from gristmill.stages.contract import Stage
from gristmill.stages.registry import stage_class

ITEM = "A baker has seventeen loaves and sells four of them before noon, then bakes nine more and gives two away."
PLAIN = "Bread rises because yeast eats the sugar and leaves gas in the dough, which the oven then sets for good."
MAIL = "Write to jane.doe@gmail.com about it."


def stage_of(kind: str, **table: Any) -> Stage:
    cls = stage_class(kind)
    stage = cls(build(cls.Spec, table, "stage"))
    stage.open()
    return stage


def rows_of(texts: list[tuple[str | None, str | None]], is_models: bool = True) -> pa.RecordBatch:
    fields = [pa.field("text", pa.string()), REASONING, *([TOKENS_REASONING] if is_models else []), REJECT]
    rows = [{"text": text, "reasoning": reasoning} for text, reasoning in texts]
    return pa.RecordBatch.from_pylist(rows, pa.schema(fields))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path: Path = tmp_path_factory.mktemp("items") / "items.jsonl"
    path.write_text(json.dumps({"id": "one", "text": ITEM}) + "\n")
    return {"benchmarks": [{"name": "b", "path": str(path)}]}


def test_a_benchmark_item_in_the_reasoning_rejects_the_row(benchmark: dict[str, Any]) -> None:
    stage = stage_of("decontaminate", **benchmark)
    thought = f"Let me recall. {ITEM}"
    rows = stage.run(rows_of([(PLAIN, thought), (ITEM, thought), (PLAIN, PLAIN), (PLAIN, None)])).to_pylist()
    rejects = ["decontaminate:overlap_in_reasoning", "decontaminate:overlap", None, None]
    assert [row["reject"] for row in rows] == rejects
    assert thought[rows[0]["overlap_start"] : rows[0]["overlap_end"]] == ITEM.rstrip(".")
    assert rows[0]["overlap_item"] == "items.jsonl:0" and rows[2]["overlap_item"] is None


def test_only_the_models_reasoning_is_searched_unless_the_recipe_says_otherwise(benchmark: dict[str, Any]) -> None:
    other = rows_of([(PLAIN, ITEM)], is_models=False)  # a column of the source that has this name
    assert stage_of("decontaminate", **benchmark).run(other).to_pylist()[0]["reject"] is None
    named = stage_of("decontaminate", **benchmark, also=["reasoning"])
    assert named.reads() == ["text", "reasoning"]
    assert named.run(other).to_pylist()[0]["reject"] == "decontaminate:overlap_in_reasoning"
    answer = stage_of("decontaminate", **benchmark, also=[])
    assert answer.run(rows_of([(PLAIN, ITEM)])).to_pylist()[0]["reject"] is None


def test_personal_data_in_the_reasoning_rejects_the_row() -> None:
    rows = stage_of("pii").run(rows_of([(PLAIN, MAIL), (MAIL, MAIL), (PLAIN, PLAIN), (None, None)])).to_pylist()
    assert [row["reject"] for row in rows] == ["pii:email_in_reasoning", "pii:email", None, None]
    assert rows[0]["pii_kinds"] == ["email"] and rows[2]["pii_kinds"] == []
    (span,) = rows[0]["pii_spans"]
    assert MAIL[span["start"] : span["end"]] == "jane.doe@gmail.com"


def test_spans_that_a_later_step_masks_are_of_one_column() -> None:
    (row,) = stage_of("pii", action="find").run(rows_of([(PLAIN, MAIL)])).to_pylist()
    assert row["pii_kinds"] == [] and row["reject"] is None
    with pytest.raises(UserError, match="name a second stage"):
        stage_of("pii", action="find", also=["reasoning"])
