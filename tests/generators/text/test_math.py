"""The method `math`: problems, worked solutions, final answers and their majority."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.math import majority
from gristmill.records.errors import UserError
from tests.generators.text.script import made, method_of, refusal, told

PROBLEM = "Ann has 3 apples and buys 4. How many has she?"
SCRIPT = {"problem": PROBLEM, "solution": "She adds them: 3 + 4 = 7.\nAnswer: 7"}
SEED = {"text": "apples"}


def test_a_problem_is_made_and_solved():
    row, engine, session = told("math", {}, SEED, SCRIPT)
    assert row["instruction"] == PROBLEM and row["answer"] == "7" and row["answers"] == ["7"]
    assert row["text"] == f"{PROBLEM}\n\n{row['solution']}" and "apples" in engine.asked[0]
    assert [turn["turn"] for turn in session.turns] == ["problem", "solution"]


def test_the_majority_decides_and_its_first_solution_is_shown():
    said = ["I think.\nAnswer: 5", "The answer is 1/2.", "no idea", "Answer: 0.50", Reply("Answer: 5, so", "length")]
    row, engine, session = told(
        "math", {"given_problem": "{q} {n}?", "samples": 5}, {"q": "How", "n": 2}, {"solution": said}
    )
    assert row["answers"] == ["5", "1/2", None, "0.50", None]
    assert row["answer"] == "1/2" and row["solution"] == "The answer is 1/2." and row["instruction"] == "How 2?"
    assert [turn["turn"] for turn in session.turns] == ["solution"] * 5
    assert len(set(engine.asked)) == 1


@pytest.mark.parametrize(
    "call,said,reason",
    [
        ("problem", "", "empty_problem"),
        ("problem", Reply("Ann has", "length"), "cut_problem"),
        ("solution", "", "no_answer"),
        ("solution", "It is seven, I think", "no_answer"),
        ("solution", Reply("Answer: 7", "length"), "no_answer"),
        ("solution", AskRefused("context_length"), "context_length"),
    ],
)
def test_a_bad_answer_refuses_the_ask(call, said, reason):
    for samples in (1, 3):
        assert refusal("math", {"samples": samples}, SEED, {**SCRIPT, call: said}) == reason


def test_rules_of_extraction_are_the_recipes():
    script = {"solution": "So 3 + 4 makes \\boxed{7}. #### 8"}
    table = {"given_problem": "{text}"}
    assert told("math", table, SEED, script)[0]["answer"] == "7"
    assert told("math", {**table, "extract": ["hash", "boxed"]}, SEED, script)[0]["answer"] == "8"


@given(st.lists(st.one_of(st.none(), st.sampled_from(["1", "1.0", "2", " 2 ", "\\frac12", "0.5", "x"])), max_size=8))
def test_the_majority_is_the_first_of_the_most_frequent(answers):
    same = {"1.0": "1", " 2 ": "2", "\\frac12": "0.5"}
    plain = [same.get(a, a) for a in answers if a is not None]
    at = majority(answers)
    if not plain:
        assert at is None
        return
    best = max(plain.count(a) for a in plain)
    winner = next(a for a in plain if plain.count(a) == best)
    assert at == next(i for i, a in enumerate(answers) if same.get(a, a) == winner)


def test_keys_are_checked():
    for table, message in [
        ({"samples": 0}, "samples"),
        ({"extract": []}, "extract"),
        ({"extract": ["guess"]}, "guess"),
        ({"templates": {"solution": "Solve it."}}, "must hold {problem}"),
        ({"given_problem": "{q}", "sampling": {"problem": {}}}, "no such call"),
        ({"templates": {"answer": "x"}}, "no call is named"),
    ]:
        with pytest.raises(UserError, match=message):
            method_of("math", table)
    assert method_of("math", {"given_problem": "{q}"}).fields_read() == ["q"]
    assert method_of("math", {}).fields_read() == ["text"]
    assert method_of("math", {}).spec.wording["problem"] in method_of("math", {}).identity()["templates"].values()


def test_the_same_rows_again_however_they_are_batched():
    script = {
        "problem": [PROBLEM, "", "How many?"],
        "solution": ["Answer: 7", "Answer: 8", "none", Reply("Answer: 9", "length", 9, 9)],
    }
    rows = made("math", {"samples": 4}, [SEED] * 40, script)
    assert {row["reject"] for row in rows} >= {None, "generator:empty_problem"}
    assert {len(row["answers"]) for row in rows if row["reject"] is None} == {4}
