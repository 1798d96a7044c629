"""Columns of the replies: reasoning, logprobs, turns and kept tokens, whatever the method."""

import asyncio
from typing import Any

import pytest

from gristmill.engines.contract import UNFINISHED, AnswerForm, Logprobs, Reply
from gristmill.generators.text.registry import KINDS
from gristmill.records.schema import clean
from tests.generators.text.script import OnScript, asks

THINKS = AnswerForm(reasoning=True)
BOTH = AnswerForm(reasoning=True, logprobs=True)


def thought(text: str, reasoning: str | None = "I think.", finish: str = "stop", mean: float = -0.5) -> Reply:
    return Reply(text, finish, 10, 12, reasoning, 8, logprobs=Logprobs(mean, -2.0, 0.25))


def made(
    kind: str, table: dict[str, Any], script: dict[str, Any], form: AnswerForm = BOTH, **fields: Any
) -> dict[str, Any]:
    generator = OnScript(kind, table, script)
    generator.form = form
    generator.open()
    batch = asyncio.run(generator.make(asks([{"text": "apples", **fields}])))
    batch.validate(full=True)
    row: dict[str, Any] = batch.to_pylist()[0]
    assert [name for name in batch.schema.names if name in {f.name for f in generator.payload}] == [
        f.name for f in generator.payload
    ]
    return row


def test_a_row_of_one_call_has_its_reasoning_and_its_logprobs() -> None:
    row = made("distill", {}, {"apples": thought("Red.", "They are red.")})
    assert (row["reasoning"], row["tokens_reasoning"], row["text"]) == ("They are red.", 8, "apples\n\nRed.")
    assert (row["logprob_mean"], row["logprob_min"], row["entropy"]) == (-0.5, -2.0, 0.25)
    assert row["reject"] is None and row["tokens_out"] == 12
    row = made("distill", {}, {"apples": thought("Red.", None)})
    assert row["reasoning"] is None and row["reject"] is None


def test_without_reasoning_and_logprobs_rows_are_as_before() -> None:
    row = made("distill", {}, {"apples": thought("Red.")}, AnswerForm())
    assert not {"reasoning", "tokens_reasoning", "logprob_mean", "entropy"} & set(row)
    row = made("math", {"given_problem": "{text}?"}, {"step by step": thought("Answer: 7")}, AnswerForm())
    assert set(row["turns"][0]) == {"turn", "prompt", "text", "tokens_in", "tokens_out"}


def test_of_several_calls_the_one_that_wrote_the_answer_counts() -> None:
    said = [thought(f"So.\nAnswer: {n}", f"thought {n}", mean=-n) for n in (3, 7, 7)]
    row = made("math", {"given_problem": "{text}?", "samples": 9}, {"step by step": said})
    assert row["reasoning"] == f"thought {row['answer']}" and row["logprob_mean"] == -float(row["answer"])
    assert row["tokens_reasoning"] == 9 * 8
    assert {turn["reasoning"] for turn in row["turns"]} == {"thought 3", "thought 7"}
    assert row["tokens_kept"] == 12  # the answer of a call, and its reasoning


def test_an_answer_within_a_reply_is_found_and_one_of_several_calls_has_none() -> None:
    script = {
        "Return only the problem": thought("A problem with two numbers?", "first"),
        "": thought("Answer: 7", "second"),
    }
    row = made("math", {}, script)
    assert row["reasoning"] == "second"
    words = " ".join(f"word{n} is here." for n in range(60))
    row = made("rephrase", {"chunk_words": 40}, {"word": thought("Told anew.")}, text=words)
    assert len(row["turns"]) > 1 and row["reasoning"] is None and row["logprob_mean"] is None
    assert row["tokens_reasoning"] == 8 * len(row["turns"])
    row = made("backtranslate", {"min_words": 1, "curate": False}, {"apples": thought("Name a fruit, please.")})
    assert row["reject"] is None and row["reasoning"] is None  # the answer of the row is the source's


@pytest.mark.parametrize("finish", [UNFINISHED, "length"])
@pytest.mark.parametrize("kind", ["prompt", "distill", "textbook", "math", "paraphrase", "exercise", "preference"])
def test_a_thinking_without_an_end_has_a_reason_of_its_own(kind: str, finish: str) -> None:
    endless = Reply("", finish, 10, 12, "and then", 12)
    row = made(kind, {}, {"": endless}, topic="apples")
    assert row["reject"] == "generator:unfinished_reasoning" and row["finish"] == UNFINISHED
    assert row["reasoning"] == "and then" and row["tokens_reasoning"] == row["tokens_out"] > 0
    assert row["text"] is None and row["logprob_mean"] is None
    row = made(kind, {}, {"": Reply("", "length", 10, 12)}, AnswerForm(), topic="apples")
    assert "unfinished" not in str(row["reject"])


def test_one_endless_thinking_among_several_samples_only_has_no_vote() -> None:
    said = [Reply("", UNFINISHED, 10, 12, "and then", 12), *[thought("Answer: 7")] * 5]
    row = made("math", {"given_problem": "{text}?", "samples": 12}, {"step by step": said})
    assert row["reject"] is None and row["answer"] == "7" and row["finish"] == UNFINISHED
    assert None in row["answers"]


def test_no_method_has_a_column_of_the_replies() -> None:
    for kind in sorted(KINDS):
        try:
            generator = OnScript(kind, {}, {})
        except Exception:  # noqa: BLE001 - a method whose keys have no defaults
            continue
        generator.form = BOTH
        names = [f.name for f in generator.payload]
        assert len(names) == len(set(names)), kind


def test_half_characters_of_a_reasoning_are_replaced() -> None:
    row = made("math", {"given_problem": "{text}?"}, {"step by step": thought("Answer: 7", "cut \ud83d off")})
    assert row["reasoning"] == clean("cut \ud83d off") == row["turns"][0]["reasoning"]
