"""The generator `passthrough`: rows of the source come out as they are, and bad ones are rejects."""

import asyncio
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.generators.passthrough import Passthrough, PassthroughSpec
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.lots import Plan, asks
from gristmill.records.readers.sources import Items, Source
from gristmill.records.spec import build


def make(rows: list[Any], **spec: Any) -> list[dict[str, Any]]:
    generator = Passthrough(build(PassthroughSpec, spec, "generator"))
    plan = Plan(fingerprint("x"), 64, len(rows), len(rows), "passthrough", origin=generator.origin)
    source = Source([Items([])], None)
    source.parts[0].texts = [json.dumps(row) for row in rows]  # type: ignore[attr-defined]
    source.parts[0].num_rows = source.num_rows = len(rows)
    source.starts[-1] = len(rows)
    batch = asyncio.run(generator.make(asks(plan, source, 0)))
    batch.validate(full=True)
    assert generator.progress == (len(rows), 0)
    found: list[dict[str, Any]] = batch.to_pylist()
    return found


def test_rows_come_out_as_they_are() -> None:
    rows = [
        {"text": "a", "answers": ["1", 2, None], "more": 1},
        {"text": {"b": 1}, "answers": []},
        {"text": None, "answers": None},
        {"answers": []},
        {"text": "c", "answers": "1"},
        [1, 2],
        {"text": "lone \ud800", "answers": ["\ud800"]},
    ]
    told = make(rows, columns=["text"], lists=["answers"])
    assert [row["text"] for row in told] == ["a", '{"b": 1}', None, None, None, None, "lone ?"]
    assert [row["answers"] for row in told] == [["1", "2", None], [], None, None, None, None, ["?"]]
    reasons = [None, None, None, "missing_field", "not_a_list", "malformed_ask", None]
    assert [row["reject"] for row in told] == [r and f"generator:{r}" for r in reasons]
    assert {row["origin"] for row in told} == {"real"} and told[0]["finish"] == "stop" and told[0]["tokens_out"] == 0


def test_origin_is_what_the_recipe_says() -> None:
    assert make([{"text": "a"}], origin="synthetic")[0]["origin"] == "synthetic"
    real, synthetic = Passthrough(PassthroughSpec()), Passthrough(PassthroughSpec(origin="synthetic"))
    assert real.identity() != synthetic.identity()


def test_refusals() -> None:
    for spec in ({"columns": []}, {"columns": ["a"], "lists": ["a"]}, {"origin": "found"}, {"column": "a"}):
        with pytest.raises(UserError, match="generator"):
            build(PassthroughSpec, spec, "generator")


@given(st.lists(st.fixed_dictionaries({"text": st.none() | st.text(), "n": st.none() | st.integers()}), min_size=1))
def test_any_texts_pass_unchanged(rows: list[dict[str, Any]]) -> None:
    told = make(rows, columns=["text", "n"])
    assert [row["text"] for row in told] == [row["text"] for row in rows]
    assert [row["n"] for row in told] == [None if row["n"] is None else str(row["n"]) for row in rows]
    assert pa.array([row["reject"] for row in told]).null_count == len(rows)
