"""Counts of texts that are alike: bounded, exact within their bound, and the same however a run was resumed."""

import json
import time
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.cluster.spec import Limits
from gristmill.evaluation.probes import cloze_items
from gristmill.generators.text.chunks import chunks
from gristmill.records.output import templates
from gristmill.records.output.summary import Summary
from gristmill.records.output.templates import MAX_MARKS, MAX_TEXTS, count, largest, marks_of, merge, num_texts, top
from tests.profiles import scaled

BODY = "one reads of rivers and of the sea in many words until it is over"


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string())})


QA = f"**Question:** {BODY}?\n**Answer:** Yes.\n1. So"
CHINESE = "月亮吸引海水，潮水每天涨两次。谁知道为什么？我们一起来学习吧！"


@pytest.mark.parametrize(
    "text, opening, closing, skeleton",
    [
        (f"In 1999, {BODY}.", "in # one reads", "until it is over", ""),
        (f"# Sea\n\n- {BODY}\n- the moon\n\nSo it is.", "sea one reads of", "moon so it is", "heading | item+ | so"),
        (f"The sea. It {BODY}. The end.", "the sea it one", "is over the end", "the . it . the"),
        (QA, "question one reads of", "answer yes # so", "question: | answer: | number"),
        (CHINESE, "月亮 吸引 海水 潮水", "我们 一起 来学 习吧", "月亮 . 谁知 . 我们"),
    ],
)
def test_marks(text: str, opening: str, closing: str, skeleton: str) -> None:
    assert marks_of(text) == (opening, closing, skeleton)
    assert marks_of("positive") is None, "a label is alike by its nature"


def text_of(number: int) -> str:
    return f"opening {chr(97 + number % 26)}{chr(97 + number // 26)} has {BODY}"


@given(st.lists(st.lists(st.integers(0, 300).map(lambda n: n if n % 3 else 7), max_size=90), max_size=12))
@settings(max_examples=scaled(60), deadline=None)
def test_no_count_is_too_high_nor_too_low_by_more_than_is_missed(lots: list[list[int]]) -> None:
    whole, exact = Summary(), Counter[str]()
    for lot in lots:
        texts = [text_of(number) for number in lot]
        whole.add(Summary(templates=count(table(texts))))
        looked_at = texts if len(texts) <= MAX_TEXTS else [texts[i * len(texts) // MAX_TEXTS] for i in range(MAX_TEXTS)]
        exact.update(marks_of(text)[0] for text in looked_at)
    counts = whole.templates
    assert num_texts(counts) == exact.total()
    missed = counts.get("missed", {}).get("openings", 0)
    assert missed * (MAX_MARKS + 1) <= exact.total()
    held = counts.get("openings", {})
    assert len(held) <= MAX_MARKS
    assert all(exact[mark] - missed <= held.get(mark, 0) <= exact[mark] for mark in exact)


@given(st.lists(st.lists(st.integers(0, 200), max_size=70), min_size=1, max_size=8), st.integers(0, 8))
@settings(max_examples=scaled(40), deadline=None)
def test_a_resumed_run_has_the_same_counts(lots: list[list[int]], stop: int) -> None:
    parts = [Summary(templates=count(table([text_of(number) for number in lot]))) for lot in lots]
    whole, resumed = Summary(), Summary()
    for part in parts:
        whole.add(part)
    before = Summary()
    for part in parts[:stop]:
        before.add(part)
    resumed.add(Summary(**json.loads(json.dumps(before.literals()))))  # as a manifest holds them
    for part in parts[stop:]:
        resumed.add(part)
    assert resumed.templates == whole.templates


def test_an_alarm_needs_a_limit_and_a_hundred_texts() -> None:
    few, many = Summary(templates=count(table([text_of(7)] * 60))), Summary()
    assert Limits(template_share=0.3).alarm(few) is None and largest(few.templates) is None
    for _ in range(3):
        many.add(few)
    assert Limits(template_share=0.3).alarm(many) == "template_share" and Limits().alarm(many) is None
    assert templates.likeness(many.templates).startswith("100% of 180 texts begin with")
    assert top(many.templates, "openings")[0].num == 180
    assert templates.shares(many.templates) == {"openings": 1.0, "closings": 1.0}
    with pytest.raises(ValueError, match="less than 1"):
        Limits(template_share=1.0)


@pytest.mark.parametrize("column", [None, pa.array([1, 2]), pa.array(["", None]), pa.array([None, None], pa.string())])
def test_rows_without_texts_count_nothing(column: pa.Array | None) -> None:
    rows = pa.table({"label": ["a", "b"]} if column is None else {"text": column})
    assert count(rows) == {}
    held = {"of": {"texts": 3}, "openings": {"a": 2}}
    merge(held, {})
    assert held == {"of": {"texts": 3}, "openings": {"a": 2}}


@pytest.mark.parametrize("unit", ["_", "*", ".", "- ", "\n", "A\n", '."', "a: ", "。", "1", " ", "__a", "# \n"])
def test_time_grows_with_the_text_alone(unit: str) -> None:
    started = time.process_time()
    marks_of("one two three four five six seven eight nine ten eleven twelve " + unit * (200_000 // len(unit)))
    cloze_items([unit * (200_000 // len(unit))], 5)
    chunks(unit * (200_000 // len(unit)), 50)
    assert time.process_time() - started < 5
