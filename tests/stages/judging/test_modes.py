"""The judge's three modes with an engine whose answers are written down: what is asked, found and rejected."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build, literals
from gristmill.stages.judging.answers import read_scores
from gristmill.stages.judging.judge import Judge, JudgeSpec
from gristmill.stages.trajectory.messages import MESSAGES, trajectory_text

MODEL = {"model": "package:smollm2"}
Row = dict[str, Any]


class Script:
    """Answers by a function of the prompt; None refuses. Keeps what it was asked."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    async def chat(self, prompt: str, sampling: dict, seed: int, form: Any = None) -> Reply:
        self.asked.append((prompt, seed))
        await asyncio.sleep(0)
        said = self.answer(prompt)
        if said is None:
            raise AskRefused("context_length")
        return Reply(said if isinstance(said, str) else json.dumps(said), "stop", 10, 3)


def judged(answer: Callable[[str], Any], rows: list[Row], **keys: Any) -> tuple[list[Row], Script, Judge]:
    stage = Judge(build(JudgeSpec, {**MODEL, **keys}, "stages[0]"))
    script = Script(answer)
    stage._engine = script  # type: ignore[assignment]
    kinds = {name: MESSAGES.type if isinstance(value, list) else pa.string() for name, value in rows[0].items()}
    schema = pa.schema([("seed", pa.int64()), *((name, kinds[name]) for name in rows[0] if name != "seed"), REJECT])
    table = [{"seed": 1000 + number, **row} for number, row in enumerate(rows)]
    return asyncio.run(stage.run_pooled(pa.RecordBatch.from_pylist(table, schema))).to_pylist(), script, stage


def pair_judge(worth: dict[str, int], first_bonus: int = 0) -> Callable[[str], Any]:
    """Scores the texts by what they are worth, and gives the one in front a bonus."""

    def answer(prompt: str) -> Any:
        a, b = prompt.split("|")[1:3]
        if "garbled" in (a, b):
            return "A is better"
        return {"a": min(5, worth[a] + first_bonus), "b": worth[b]}

    return answer


PAIR = {"mode": "pairwise", "prompt": "{low}-{high}|{a}|{b}|"}
WORTH = {"good": 4, "fair": 3, "bad": 1}


def pairs(*texts: tuple[str | None, str | None]) -> list[Row]:
    return [{"chosen": chosen, "rejected": rejected} for chosen, rejected in texts]


def test_a_pair_is_asked_in_both_orders_and_wins_only_in_both() -> None:
    rows, script, stage = judged(pair_judge(WORTH), pairs(("good", "bad"), ("bad", "good"), ("fair", "fair")), **PAIR)
    assert [p for p, _ in script.asked[:2]] == ["1-5|good|bad|", "1-5|bad|good|"]
    assert len({seed for _, seed in script.asked}) == 6, "each call has a seed of its own"
    assert [r["judge_winner"] for r in rows] == ["a", "b", "tie"]
    assert [r["judge_margin"] for r in rows] == [3.0, -3.0, 0.0]
    assert [r["judge_consistent"] for r in rows] == [True] * 3
    assert [r["reject"] for r in rows] == [None] * 3
    assert rows[0]["judge_tokens_in"] == 20 and rows[0]["judge_tokens_out"] == 6
    assert stage.progress == (3, 18)


def test_what_hangs_on_the_order_is_a_tie_and_may_be_rejected() -> None:
    texts = pairs(("good", "fair"), ("good", "bad"), ("fair", "good"))
    biased = pair_judge(WORTH, first_bonus=2)
    rows, _, _ = judged(biased, texts, **PAIR)
    assert [(r["judge_winner"], r["judge_consistent"]) for r in rows] == [("tie", False), ("a", True), ("tie", False)]
    assert rows[0]["judge_margin"] == 0.5, "the bias for a place is in both orders and cancels, but for the scale's end"
    rows, _, _ = judged(biased, texts, **PAIR, must_agree=True)
    assert [r["reject"] for r in rows] == ["judge:position_bias", None, "judge:position_bias"]


def test_a_tie_in_one_order_alone_is_no_agreement() -> None:
    rows, _, _ = judged(pair_judge({"x": 4, "y": 3}, first_bonus=1), pairs(("x", "y")), **PAIR)
    assert (rows[0]["judge_winner"], rows[0]["judge_consistent"], rows[0]["judge_margin"]) == ("tie", False, 1.0)


@pytest.mark.parametrize(
    ("keys", "reasons"),
    [
        ({"must_win": True}, [None, None, "judge:loser", "judge:loser", "judge:no_score"]),
        ({"min_margin": 2.0}, [None, "judge:margin", None, "judge:margin", "judge:no_score"]),
        ({"must_win": True, "min_margin": 2.0}, [None, "judge:margin", "judge:loser", "judge:loser", "judge:no_score"]),
        ({"must_agree": True}, [None, None, None, None, "judge:no_score"]),
        ({}, [None] * 5),
    ],
)
def test_what_a_pair_is_rejected_for(keys: dict, reasons: list[str | None]) -> None:
    texts = pairs(("good", "bad"), ("good", "fair"), ("bad", "good"), ("fair", "fair"), ("garbled", "good"))
    rows, _, _ = judged(pair_judge(WORTH), texts, **PAIR, **keys)
    assert [r["reject"] for r in rows] == reasons
    assert rows[4]["judge_winner"] is rows[4]["judge_margin"] is rows[4]["judge_consistent"] is None
    assert rows[4]["judge_tokens_out"] == 6


def test_the_question_goes_into_the_prompt_and_nulls_are_empty_texts() -> None:
    rows = [{"prompt": "Why {so}?", "chosen": None, "rejected": "because"}]
    found, script, stage = judged(lambda _: None, rows, mode="pairwise", question="prompt")
    assert "Question:\nWhy {so}?\n\nAnswer A:\n\n\nAnswer B:\nbecause" in script.asked[0][0]
    assert "Answer A:\nbecause\n\nAnswer B:\n" in script.asked[1][0]
    assert found[0]["judge_winner"] is None and found[0]["judge_tokens_in"] == 0
    assert stage.reads() == ["chosen", "rejected", "prompt"] and stage.progress == (1, 0)


STEPS = {"mode": "steps", "prompt": "{before}|{step}|{low}{high}"}


def step_judge(prompt: str) -> Any:
    _, step, _ = prompt.split("|")
    if "long" in step:
        return None
    return {"score": 1 if "wrong" in step else 5} if "garbled" not in step else "{"


def solutions(*texts: str | None) -> list[Row]:
    return [{"text": text} for text in texts]


def test_each_step_is_scored_after_those_before_it() -> None:
    rows, script, stage = judged(step_judge, solutions("1. a\n2. wrong\n3. c\n4. wrong", "1. a\n2. b"), **STEPS)
    assert [p for p, _ in script.asked[:3]] == ["(none)|1. a|15", "1. a|2. wrong|15", "1. a\n\n2. wrong|3. c|15"]
    assert len({seed for _, seed in script.asked}) == 6
    assert [r["judge_steps"] for r in rows] == [[5, 1, 5, 1], [5, 5]]
    assert [r["judge_first_bad"] for r in rows] == [1, None]
    assert [r["judge_num_steps"] for r in rows] == [4, 2]
    assert [r["judge_tokens_in"] for r in rows] == [40, 20]
    assert [r["reject"] for r in rows] == [None, None]
    assert stage.progress == (2, 18)


def test_what_a_solution_is_rejected_for() -> None:
    texts = [
        "1. a\n2. wrong",
        "1. a\n2. garbled",
        "1. long\n2. b",
        "1. garbled\n2. wrong",
        "",
        None,
        "a\nb\nc\nd",
        "a\nb",
    ]
    rows, script, _ = judged(step_judge, solutions(*texts), **STEPS, min_score=3, max_steps=3)
    assert [r["judge_steps"] for r in rows] == [[5, 1], [5, None], [None, 5], [None, 1], [], [], None, [5, 5]]
    assert [r["judge_first_bad"] for r in rows] == [1, None, None, 1, None, None, None, None]
    assert [r["judge_num_steps"] for r in rows] == [2, 2, 2, 2, 0, 0, 4, 2]
    assert [r["reject"] for r in rows] == [
        "judge:step",
        "judge:no_score",
        "judge:no_score",
        "judge:step",
        "judge:no_score",
        "judge:no_score",
        "judge:too_many_steps",
        None,
    ]
    assert len(script.asked) == 10, "a solution of too many steps costs nothing"
    rows, _, stage = judged(step_judge, solutions(*texts), **STEPS, max_steps=3)
    assert [r["reject"] for r in rows] == [None] * len(texts)
    assert stage.progress[0] == len(texts)


def test_labels_of_a_process_reward_model() -> None:
    """-1, 0 and 1 as in PRM800K: a step is bad below the middle."""
    scores = {"a": 1, "b": 0, "c": -1}
    rows, _, _ = judged(lambda p: {"score": scores[p.split("|")[1]]}, solutions("a\nb\nc"), **STEPS, low=-1, high=1)
    assert rows[0]["judge_steps"] == [1, 0, -1] and rows[0]["judge_first_bad"] == 2


def test_a_row_s_calls_do_not_hang_on_its_neighbours() -> None:
    texts = ["1. a\n2. b", "x", "1. wrong\n2. b\n3. c"]
    for keys, rows in (
        (STEPS, [{"seed": 7 + n, "text": t} for n, t in enumerate(texts)]),
        (PAIR, [{"seed": 7 + n, "chosen": t[-1], "rejected": "x"} for n, t in enumerate(texts)]),
    ):
        _, together, _ = judged(lambda _: "{}", rows, **keys)
        alone = [call for row in rows for call in judged(lambda _: "{}", [row], **keys)[1].asked]
        assert sorted(together.asked) == sorted(alone)


def test_pointwise_asks_what_it_always_asked() -> None:
    rows, script, _ = judged(lambda _: {"score": 2}, solutions("a text"), min_score=3)
    assert "\nText:\na text\n" in script.asked[0][0]
    assert script.asked[0][1] == 1000 ^ 301712148, "the seed of old outputs: the row's, and crc32 of the name"
    assert list(rows[0])[-4:] == ["judge_score", "judge_tokens_in", "judge_tokens_out", "reject"]
    assert rows[0]["reject"] == "judge:score"


def test_a_whole_trajectory_is_one_text_for_the_judge() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    talk = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "7", "tool_call_id": "1", "name": "add"},
    ]
    rows, script, stage = judged(lambda _: {"score": 4}, [{"messages": talk}], column="messages", prompt="|{text}|")
    assert rows[0]["judge_score"] == 4 and script.asked[0][0] == f"|{trajectory_text(talk)}|"
    assert stage.refuses(pa.field("messages", MESSAGES.type)) is None
    assert stage.refuses(pa.field("messages", pa.list_(pa.string()))) == "holds no text"


def test_old_specs_bear_the_identity_that_they_had() -> None:
    spec = build(JudgeSpec, {**MODEL, "min_score": 3}, "stages[0]")
    assert set(literals(spec)) >= {"prompt", "column", "low", "high", "min_score"}
    assert not set(literals(spec)) & {"mode", "first", "second", "question", "must_agree", "max_steps"}
    pairwise = literals(build(JudgeSpec, {**MODEL, "mode": "pairwise", "must_win": True}, "stages[0]"))
    assert (pairwise["mode"], pairwise["must_win"]) == ("pairwise", True) and "{a}" in pairwise["prompt"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mode": "pair"}, "'pair' is not one of 'pointwise', 'pairwise', 'steps'"),
        ({"must_win": True}, 'must_win goes with mode = "pairwise"'),
        ({"mode": "pairwise", "min_score": 3}, 'min_score goes with mode = "pointwise"'),
        ({"mode": "pairwise", "column": "output"}, "column goes with"),
        ({"mode": "pairwise", "max_steps": 3}, 'max_steps goes with mode = "steps"'),
        ({"question": "prompt"}, "question goes with"),
        ({"mode": "pairwise", "first": "x", "second": "x"}, "two columns"),
        ({"mode": "pairwise", "min_margin": 5.0}, "at most 4"),
        ({"mode": "pairwise", "prompt": "{a}"}, "prompt must hold {b}"),
        ({"mode": "pairwise", "prompt": "{a}{b}{question}"}, "{question} goes with question = a column"),
        ({"mode": "pairwise", "prompt": "{a}{b}", "question": "prompt"}, "prompt must hold {question}"),
        ({"mode": "pairwise", "prompt": "{a}{b}{text}"}, "prompt may hold"),
        ({"mode": "steps", "prompt": "{step}"}, "prompt must hold {before}"),
        ({"mode": "steps", "max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys: dict, words: str) -> None:
    with pytest.raises(UserError) as refused:
        build(JudgeSpec, {**MODEL, **keys}, "stages[0]")
    assert words in str(refused.value)


@given(st.one_of(st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda c:
    st.lists(c) | st.dictionaries(st.sampled_from(["a", "b", "c"]), c), max_leaves=6).map(json.dumps)))  # fmt: skip
def test_any_answer_is_two_scores_on_the_scale_or_none(text: str) -> None:
    scores = read_scores(text, ("a", "b"), 1, 5)
    if scores is not None:
        answer = json.loads(text)
        assert scores == (answer["a"], answer["b"]) and all(type(s) is int and 1 <= s <= 5 for s in scores)
