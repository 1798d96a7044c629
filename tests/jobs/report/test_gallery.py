"""Rows to look at: chosen by the output alone, cut to a stated length, shown in their own shape, harmless."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.generators.text.contract import TURNS
from gristmill.jobs.report import rows as show_row
from gristmill.jobs.report.command import write_report
from gristmill.jobs.report.gallery import NUM_KEPT_SHOWN, NUM_REASONS_SHOWN, gallery, stage_columns, varied
from gristmill.jobs.report.rows import RowLayout, cut, layout_of, row_view
from gristmill.jobs.report.sample import read_sample
from gristmill.records.lots import Plan, asks
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import OutputSpec, encode, put_kept, put_rejected
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import REASONING, REJECT, TOKENS_REASONING, full_schema
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store
from gristmill.stages.trajectory.messages import MESSAGES
from tests.browser import browser, look
from tests.jobs.report.test_report import EVIL, check_harmless, read

TALK = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
LOT = 8


def call(turn: str, prompt: str, text: str, tokens_out: int = 5) -> dict[str, Any]:
    return {"turn": turn, "prompt": prompt, "text": text, "tokens_in": 3, "tokens_out": tokens_out}


def write_run(folder: Path, payload: list[pa.Field], rows: list[dict[str, Any]], stages: list[dict[str, Any]]) -> Store:
    """A finished run that holds these rows, as a run writes them."""
    store = open_store(str(folder))
    recipe = {"name": folder.name, "generator": {"kind": "canned"}, "method": {"kind": "prompt"}, "stages": stages}
    findings = [f for s in stages for f in _stage(s).columns()]
    schema = full_schema(payload, findings)
    plan = Plan("ab" * 16, LOT, len(rows), len(rows), "canned", "m", "prompt")
    source = open_source(SourceSpec(items=tuple(f"item {i}" for i in range(len(rows)))))
    book = Manifest(plan.fingerprint, {"lot_size": LOT, **recipe}, {}, "complete")
    for number in range(plan.num_lots or 0):
        batch = asks(plan, source, number)
        mine = rows[number * LOT :][: batch.num_rows]
        arrays = []
        for field in schema:
            known = batch.schema.names if field.name not in {f.name for f in [*payload, *findings, REJECT]} else ()
            values = [row.get(field.name, 10 if field.name == "tokens_out" else None) for row in mine]
            is_own = field.name in known and field.name != "tokens_out"
            arrays.append(batch.column(field.name) if is_own else pa.array(values, field.type))
        encoded = encode(pa.RecordBatch.from_arrays(arrays, schema=schema), schema, number, OutputSpec())
        put_rejected(store, encoded)
        put_kept(store, encoded)
        book.totals.add(encoded.summary)
    book.save(store)
    return store


def _stage(table: dict[str, Any]) -> Any:
    from gristmill.stages.registry import stage_class

    cls = stage_class(table["kind"])
    return cls(cls.Spec(**{k: v for k, v in table.items() if k not in ("kind", "name")}), table["name"])


CODE_STAGES = [
    {"kind": "execute", "name": "execute", "code": "code", "tests": "tests"},
    {"kind": "dedup", "name": "dedup"},
]


def code_rows(num: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(num):
        turns = [call("problem", f"make {EVIL}", f"exercise {i}"), call("solution", "solve", f"def f(): # {i}", 9)]
        row = {
            "instruction": f"exercise {i} {EVIL}",
            "code": f"def f():\n    return {i}",
            "tests": f"assert f() == {i}",
        }
        row |= {"text": f"text {i}", "turns": turns, "execute_verdict": "passed", "execute_exit": 0}
        if i % 4 == 1:
            row |= {"reject": "execute:failed", "execute_verdict": "failed", "execute_detail": f"AssertionError {EVIL}"}
        elif i == 6:
            row = {"reject": "generator:no_code", "turns": turns[:1]}
        elif i == 11:
            row |= {"reject": "dedup:duplicate", "duplicate_of": "f" * 32}
        rows.append(row)
    return rows


@pytest.fixture
def code(tmp_path: Path) -> Store:
    names = ("instruction", "code", "tests", "text")
    payload = [*(pa.field(n, pa.string()) for n in names), TURNS]
    return write_run(tmp_path / "code", payload, code_rows(24), CODE_STAGES)


def book_of(store: Store) -> Manifest:
    from gristmill.records.output import manifest

    book = manifest.load(store)
    assert book is not None
    return book


def test_rows_of_code_with_their_verdicts_and_calls(code: Store, tmp_path: Path) -> None:
    sample = read_sample(code, 3, 24)
    rows = gallery(code, sample, book_of(code).recipe)
    assert rows == gallery(code, read_sample(code, 3, 24), book_of(code).recipe)
    kept, rejected = rows[:NUM_KEPT_SHOWN], rows[NUM_KEPT_SHOWN:]
    assert [row.reason for row in rejected] == ["execute:failed", "dedup:duplicate", "generator:no_code"]
    texts = [row.parts[0].cut.text for row in kept]
    assert len({row.id for row in kept}) == 3 and [t.split()[1] for t in texts] == ["0", "8", "16"]  # one of each lot
    assert [(p.label, p.form) for p in kept[0].parts] == [
        ("instruction", "text"), ("code", "code"), ("tests", "code")
    ]  # fmt: skip
    assert kept[0].parts[1].cut.text == "def f():\n    return 0"
    assert dict(kept[0].evidence) == {"execute verdict": "passed", "execute exit": "0"}
    assert dict(rejected[0].evidence)["execute detail"] == f"AssertionError {EVIL}"
    assert dict(rejected[1].evidence) == {"duplicate of": "f" * 12}
    assert rejected[2].parts[0].cut.text == "exercise 6" and rejected[2].num_turns == 1
    assert [t.name for t in kept[0].turns] == ["problem", "solution"] and kept[0].tokens == 3 + 5 + 3 + 9
    assert {n: (c.num, c.tokens_in, c.tokens_out) for n, c in sample.calls.items()} == {
        "problem": (24, 72, 120), "solution": (23, 69, 207)
    }  # fmt: skip
    write_report(code)
    html, reader = read(tmp_path / "code")
    check_harmless(html, reader)
    page = " ".join(" ".join(reader.text).split())
    assert "calls per row 2.0 2 kinds of call" in page and "tokens per kept row" in page and "<details>" in html
    assert "execute verdict failed" in page and f"AssertionError {EVIL}" in page and reader.tags.count("article") == 6


def test_preferences_stand_side_by_side_and_dialogues_in_turns(tmp_path: Path) -> None:
    names = ("prompt", "chosen", "rejected", "principle", "text")
    payload = [*(pa.field(n, pa.string()) for n in names), pa.field("margin", pa.float64())]
    same = {"rejected": EVIL, "principle": "kind", "text": "", "margin": 0.5}
    rows = [{"prompt": f"ask {i}", "chosen": f"good {i}", **same} for i in range(4)]
    pairs = write_run(tmp_path / "pairs", payload, rows, [])
    (first, *_) = gallery(pairs, read_sample(pairs, 1, 4), book_of(pairs).recipe)
    assert [p.form for p in first.parts] == ["text", "sides"] and first.margin == "0.5"
    assert [(side, said.text) for side, said in first.parts[1].messages] == [("chosen", "good 0"), ("rejected", EVIL)]
    assert first.footer == [("principle", "kind")]
    write_report(pairs)
    html, reader = read(tmp_path / "pairs")
    check_harmless(html, reader)
    assert "chosen · margin 0.5" in reader.text and EVIL in reader.text and "Calls" not in reader.text
    said = [{"role": "user", "content": f"{EVIL} {i}"} for i in range(12)]
    fields = [pa.field("messages", TALK), pa.field("text", pa.string()), pa.field("topic", pa.string())]
    talks = write_run(tmp_path / "talks", fields, [{"messages": said, "text": "x", "topic": "t"}], [])
    (row,) = gallery(talks, read_sample(talks, 1, 1), book_of(talks).recipe)
    (part,) = row.parts
    assert part.form == "talk" and len(part.messages) == show_row.MAX_MESSAGES and part.num_more == 4
    assert row.facts == (("topic", "t"),)
    write_report(talks)
    check_harmless(*read(tmp_path / "talks"))


def test_calls_of_tools_and_their_results_stand_under_their_speakers(tmp_path: Path) -> None:
    function = {"name": "add", "arguments": f'{{"a": "{EVIL}"}}'}
    said = [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": "I add.",
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": EVIL, "tool_call_id": "1", "name": "add"},
    ]
    fields = [MESSAGES, pa.field("text", pa.string()), pa.field("tools", pa.string())]
    run = write_run(tmp_path / "agents", fields, [{"messages": said, "text": "x", "tools": "[]"}], [])
    (row,) = gallery(run, read_sample(run, 1, 1), book_of(run).recipe)
    (part,) = row.parts
    assert [(who, words.text) for who, words in part.messages] == [
        ("user", "q"), ("assistant", f"I add. [calls add({function['arguments']})]"), ("tool add", EVIL),
    ]  # fmt: skip
    assert row.facts == (), "the tools are the same long text in each row"
    write_report(run)
    check_harmless(*read(tmp_path / "agents"))


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12), st.integers(1, 4), st.sets(st.sampled_from("ab")))
def test_rows_about_different_things_are_shown(ids: list[str], num: int, known: set[str]) -> None:
    before = set(known)
    places = varied(ids, num, known)
    assert len(places) == min(num, len(ids)) and known == before | {ids[place] for place in places}
    assert len({ids[place] for place in places} - before) == min(len(places), len(set(ids) - before))


def test_reasons_beyond_the_most_frequent_are_left_out(tmp_path: Path) -> None:
    reasons = [f"rules:r{i:02d}" for i in range(NUM_REASONS_SHOWN + 3)] + ["rules:r14"]
    rows = [{"text": f"text {i}", "reject": reason} for i, reason in enumerate(reasons)] + [{"text": "kept"}]
    store = write_run(tmp_path / "many", [pa.field("text", pa.string())], rows, [])
    found = [row.reason for row in gallery(store, read_sample(store, 3, len(rows)), book_of(store).recipe)]
    assert found == [None, "rules:r14", *reasons[: NUM_REASONS_SHOWN - 1]]


def test_a_stage_of_another_version_tells_nothing() -> None:
    stages = [{"kind": "execute", "name": "run", "colour": "red"}, {"kind": "gone", "name": "gone"}]
    assert [(name, names) for name, _, names in stage_columns({"stages": stages})] == [("run", []), ("gone", [])]


def test_rows_without_words_are_not_shown() -> None:
    assert layout_of(full_schema([pa.field("angle", pa.float64())], []), []) is None
    only = layout_of(full_schema([pa.field("label", pa.string()), pa.field("angle", pa.float64())], []), [])
    assert only is not None and only.answers == ("label",) and only.facts == ("angle",)


@given(st.text(max_size=3000), st.integers(0, 3500), st.integers(20, 600), st.booleans())
def test_a_cut_is_bounded_and_says_so(text: str, begin: int, most: int, is_code: bool) -> None:
    found = cut(text, most, begin, is_code)
    assert len(found.text) <= most
    assert found.is_cut == (begin + most < len(text)) and found.is_cut_before == (begin > 0)
    if is_code:
        assert found.text in text
    else:
        assert set(found.text.split()) <= {w for word in text.split() for w in _pieces(word, found.text)}


def _pieces(word: str, text: str) -> set[str]:
    """The word, and what a cut may have left of it: at most the first and the last word of a piece are cut."""
    ends = {w for w in (text.split()[:1] + text.split()[-1:]) if w in word}
    return {word, *ends}


@given(st.text(max_size=8000), st.lists(st.text(max_size=4000), max_size=30))
def test_a_row_of_any_size_takes_bounded_room(words: str, answers: list[str]) -> None:
    turns = [call("x" * 5, words, answer) for answer in answers]
    row = {"id": "a" * 32, "source_id": None, "reject": None, "instruction": words, "input": None, "output": words,
           "note": words, "text": words, "turns": turns}  # fmt: skip
    plan = RowLayout(("instruction", "input"), ("output",), ("note",), frozenset())
    found = row_view(row, plan)
    assert len(json.dumps([str(found)])) < 6 * (2 * 600 + 90 + 2 * 900 * show_row.MAX_TURNS + 3000)
    assert sum(len(t.text.text) + len(t.prompt.text) for t in found.turns) <= 2 * 900 * show_row.MAX_TURNS
    assert found.num_turns == len(answers) and all(len(v) <= show_row.MAX_FACT_CHARS for _, v in found.facts)


@pytest.mark.skipif(browser() is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_a_browser_shows_rows_at_every_width(code: Store, tmp_path: Path) -> None:
    write_report(code)
    for width in (360, 500, 1000):
        seen = look(tmp_path / "code" / "report.html", width)
        assert seen["width"] <= width and seen["scripts"] == 0 and seen["fetched"] == []
        assert "Example rows" in seen["headings"] and "Calls" in seen["headings"]


def test_a_row_is_shown_around_a_benchmark_only_where_it_was_rejected_for_it() -> None:
    spans = ["overlap_item", "overlap_share", "overlap_start"]
    payload = [pa.field("text", pa.string()), pa.field("output", pa.string())]
    findings = [pa.field(spans[0], pa.string()), pa.field(spans[1], pa.float32()), pa.field(spans[2], pa.int32())]
    stages: list[tuple[str, dict[str, Any], list[str]]] = [
        ("clean", {"kind": "decontaminate", "column": "output"}, spans),
        ("dedup", {"kind": "dedup"}, ["duplicate_of"]),
    ]
    look = layout_of(full_schema(payload, findings), stages)
    assert look is not None and {"output", "overlap_start"} <= set(look.columns)
    words = " ".join(f"word{n}" for n in range(2000))
    row = {"id": "a" * 32, "source_id": "s", "text": "short", "output": words, "overlap_item": "H/1"}
    row |= {"overlap_share": 0.9, "overlap_start": 9000}
    there = row_view({**row, "reject": "clean:overlap"}, look)
    assert there.parts[0].cut.is_cut_before and "word0 " not in there.parts[0].cut.text
    assert ("benchmark", "90% of H/1") in there.evidence
    other = row_view({**row, "reject": "dedup:duplicate", "duplicate_of": "f" * 32}, look)
    assert not any(part.cut.is_cut_before for part in other.parts)
    assert not any(name == "benchmark" for name, _ in other.evidence)


def test_reasoning_is_shown_before_the_answer_and_both_lengths_as_figures(tmp_path: Path) -> None:
    rows = [
        {
            **{"instruction": f"question {i}", "output": f"answer {i}", "text": f"question {i}\n\nanswer {i}"},
            **{"reasoning": f"thought {i}", "tokens_reasoning": 6 + i % 3, "tokens_out": 10},
        }
        for i in range(2 * LOT)
    ]
    endless = {"reasoning": "and then", "tokens_reasoning": 10, "reject": "generator:unfinished_reasoning"}
    rows[3] = {**dict.fromkeys(rows[3]), **endless, "tokens_out": 10}
    payload = [
        *(pa.field(name, pa.string()) for name in ("instruction", "output", "text")),
        REASONING,
        TOKENS_REASONING,
    ]
    store = write_run(tmp_path / "thinks", payload, rows, [])
    sample = read_sample(store, 2, len(rows), [])
    assert len(sample.reasoning) == len(rows) - 1 and (sample.reasoning + sample.answers == 10).all()
    shown = gallery(store, sample, {"stages": []})
    first, last = shown[0], shown[-1]
    assert [part.label for part in first.parts] == ["instruction", "reasoning", "output"]
    assert first.parts[1].cut.text.startswith("thought") and "reasoning" not in dict(first.facts)
    assert last.reason == "generator:unfinished_reasoning" and last.parts[0].cut.text == "and then"
    write_report(store)
    page, reader = read(tmp_path / "thinks")
    assert "Reasoning and answers" in page and "7 and 3 on average" in page
    check_harmless(page, reader)
