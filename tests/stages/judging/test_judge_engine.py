"""The judge's modes on the real engine with the demo teacher."""

import asyncio
from collections.abc import Callable

import pyarrow as pa
import pytest

from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.judging.judge import Judge, JudgeSpec
from tests.engine import MODEL, SharedEngine

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
STEPS = "1. A dozen is twelve.\n2. Two dozen are 2 * 12 = 25.\n3. So there are 25 eggs."
COLUMNS = [("seed", pa.int64()), *((n, pa.string()) for n in ("prompt", "chosen", "rejected", "text"))]
ROWS = [
    ("How many eggs are in two dozen?", "24", "Eggs are laid by hens.", STEPS),
    ("What is the capital of France?", "It is Paris.", "It is Paris.", "Paris."),
    ("Name a metal.", "Iron", "", "Step 1: think\nStep 2: iron"),
    ("Too long", "word " * 4000, "short", "word " * 4000 + "\n\nand a step that is short"),
]


def batch() -> pa.RecordBatch:
    names = [name for name, _ in COLUMNS]
    rows = [dict(zip(names, (101 + number, *row)), reject=None) for number, row in enumerate(ROWS)]
    return pa.RecordBatch.from_pylist(rows, pa.schema([*COLUMNS, REJECT]))


@pytest.fixture(scope="module")
def loop(shared_engine: SharedEngine) -> asyncio.Runner:
    return shared_engine.loop


@pytest.fixture(scope="module")
def judge(shared_engine: SharedEngine) -> Callable[..., Judge]:
    def make(**keys: object) -> Judge:
        made = Judge(build(JudgeSpec, {**MODEL, **keys}, "stages[0]"))
        made.check()
        made._engine = shared_engine.engine
        return made

    return make


def test_pairs_get_a_winner_whatever_the_batch(loop: asyncio.Runner, judge: Callable[..., Judge]) -> None:
    stage = judge(mode="pairwise", question="prompt", must_agree=True)
    together = loop.run(stage.run_pooled(batch()))
    rows = together.to_pylist()
    for row in rows[:3]:
        assert row["judge_winner"] in ("a", "b", "tie") and -4 <= row["judge_margin"] <= 4
        assert row["reject"] == (None if row["judge_consistent"] else "judge:position_bias")
        assert row["judge_tokens_in"] > 100 and row["judge_tokens_out"] >= 8
    assert rows[1]["judge_margin"] == 0, "the same text on both sides: what one order gives a place, the other takes"
    assert rows[3]["judge_winner"] is None and rows[3]["reject"] == "judge:no_score"
    for number in range(len(ROWS)):
        assert loop.run(stage.run_pooled(batch().slice(number, 1))).equals(together.slice(number, 1))


def test_steps_get_scores_whatever_the_batch(loop: asyncio.Runner, judge: Callable[..., Judge]) -> None:
    stage = judge(mode="steps", question="prompt", min_score=3)
    together = loop.run(stage.run_pooled(batch()))
    rows = together.to_pylist()
    assert [row["judge_num_steps"] for row in rows] == [3, 1, 2, 2]
    for row in rows[:3]:
        assert len(row["judge_steps"]) == row["judge_num_steps"] and all(1 <= s <= 5 for s in row["judge_steps"])
        bad = [at for at, score in enumerate(row["judge_steps"]) if score < 3]
        assert row["judge_first_bad"] == (bad[0] if bad else None)
        assert row["reject"] == ("judge:step" if bad else None)
    assert rows[3]["judge_steps"] == [None, None] and rows[3]["reject"] == "judge:no_score"
    for number in range(len(ROWS)):
        assert loop.run(stage.run_pooled(batch().slice(number, 1))).equals(together.slice(number, 1))


def test_pointwise_scores_beside_them(loop: asyncio.Runner, judge: Callable[..., Judge]) -> None:
    rows = loop.run(judge().run_pooled(batch())).to_pylist()
    assert all(1 <= row["judge_score"] <= 5 for row in rows[:3]) and rows[3]["judge_score"] is None
