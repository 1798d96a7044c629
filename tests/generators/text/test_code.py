"""The method `code`: problem, solution and tests out of what a model says, and the sandbox's verdict on them."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.programs import asserts_of, program_of, top_level_names
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.verify.execute import Execute, ExecuteSpec
from tests.generators.text.script import made, method_of, refusal, told
from tests.profiles import scaled
from tests.stages.verify.test_execute import human_eval

PROBLEM = "Write twice(n), which returns 2 * n. Example: twice(4) == 8."
SOLUTION = "Here:\n```python\ndef twice(n):\n    return 2 * n\n```\nIt doubles."
TESTS = "```python\nassert twice(0) == 0\nassert twice(-3) == -6\n```"
GOOD = {"problem": PROBLEM, "solution": SOLUTION, "tests": TESTS}
SEED = {"text": "x * 2"}


def verdicts(rows, **settings):
    stage = Execute(build(ExecuteSpec, {"code": "code", "tests": "tests", **settings}, "stages[0]"))
    schema = pa.schema([("code", pa.string()), ("tests", pa.string()), ("reject", pa.string())])
    batch = pa.RecordBatch.from_pylist([{**row, "reject": None} for row in rows], schema)
    try:
        stage.open()
        return stage.run(batch).column("execute_verdict").to_pylist()
    finally:
        stage.close()


def test_three_calls_make_a_row_that_the_sandbox_passes():
    row, engine, session = told("code", {}, SEED, GOOD)
    assert row["instruction"] == PROBLEM and row["code"] == "def twice(n):\n    return 2 * n"
    assert row["tests"] == "assert twice(0) == 0\nassert twice(-3) == -6"
    assert row["text"] == f"{PROBLEM}\n\n```python\n{row['code']}\n```"
    assert [turn["turn"] for turn in session.turns] == ["problem", "solution", "tests"]
    assert "x * 2" in engine.asked[0] and PROBLEM in engine.asked[1] and row["code"] in engine.asked[2]
    wrong = {**row, "code": "def twice(n):\n    return n"}
    assert verdicts([row, wrong]) == ["passed", "failed"]


def test_one_structured_call_makes_the_same_row():
    said = {"problem": PROBLEM, "solution": "def twice(n):\n    return 2 * n", "tests": "assert twice(1) == 2"}
    row, engine, _ = told("code", {"structured": True}, SEED, {"all": said})
    assert row["instruction"] == PROBLEM and row["tests"] == "assert twice(1) == 2" and len(engine.asked) == 1
    assert list(engine.schemas[0]["properties"]) == ["problem", "solution", "tests"]
    for bad in ("no JSON", "[1]", {"problem": "x"}, {**said, "tests": 3}, '{"problem": "x", "solu'):
        assert refusal("code", {"structured": True}, SEED, {"all": bad}) == "unreadable_all"
    cut = Reply('{"problem": "x", "solu', "length")
    assert refusal("code", {"structured": True}, SEED, {"all": cut}) == "cut_all"
    assert refusal("code", {"structured": True}, SEED, {"": {**said, "tests": "none"}}) == "no_tests"
    assert refusal("code", {"structured": True}, SEED, {"": {**said, "problem": " "}}) == "empty_problem"


@pytest.mark.parametrize(
    "call,said,reason",
    [
        ("problem", "  \n", "empty_problem"),
        ("problem", Reply("Write a function th", "length"), "cut_problem"),
        ("solution", "", "empty_solution"),
        ("solution", "```python\n\n```", "empty_solution"),
        ("solution", Reply("```python\ndef twice(n):", "length"), "cut_solution"),
        ("tests", "", "no_tests"),
        ("tests", "I would try some numbers.", "no_tests"),
        ("tests", "```python\nassert 1 == 1\n```", "no_tests"),
        ("tests", "```python\ntwice(4)\n```", "no_tests"),
        ("tests", "```python\nassert twice(4 == 8\n```", "unreadable_tests"),
        ("tests", "```python\ndef try_it():\n    assert twice(4) == 8\n```", "no_tests"),
        ("solution", AskRefused("context_length"), "context_length"),
    ],
)
def test_a_bad_answer_refuses_the_ask(call, said, reason):
    assert refusal("code", {}, SEED, {**GOOD, call: said}) == reason


def test_tests_are_taken_from_whatever_form_they_have():
    program = "def twice(n):\n    return 2 * n"
    form = {
        "assert twice(1) == 2\nand\nassert twice(2 == 4": "assert twice(1) == 2",
        "```\ndef twice(n):\n    return n\nassert twice(1) == 2\n```": "assert twice(1) == 2",
        "```\nfrom solution import twice\nassert twice(1) == 2; assert twice(2) == 4\n```": (
            "assert twice(1) == 2\nassert twice(2) == 4"
        ),
        "```\ndef test_it():\n    assert twice(1) == 2\n```": "def test_it():\n    assert twice(1) == 2\ntest_it()",
        "```\ndef ask(f):\n    assert f(1) == 2\nask(twice)\n```": "def ask(f):\n    assert f(1) == 2\nask(twice)",
        "```\nresult = twice(1)\nassert result == 2\n```": "result = twice(1)\nassert result == 2",
    }
    for said, tests in form.items():
        assert asserts_of(Reply(said), program) == tests
    cut = Reply("```\nassert twice(1) == 2\nassert twice(", "length")
    assert asserts_of(cut, program) == "assert twice(1) == 2"
    assert top_level_names("import math\nx, y = 1, 2\nz: int = 3\nclass A: pass\ndef f(): q = 1") == {
        "x",
        "y",
        "z",
        "A",
        "f",
    }
    assert top_level_names("def f(:\n  pass\nclass A: pass") == {"f", "A"}


def test_a_program_is_whole_although_the_talk_after_it_was_cut():
    assert program_of(Reply("```py\nx = 1\n```\nThis sets", "length")) == "x = 1"
    assert program_of(Reply("\n    return 1\n")) == "    return 1"


@settings(deadline=None, max_examples=scaled(200))
@given(st.lists(st.sampled_from(["assert", " f(1) == 2", "\n", "def f():", "    ", "```", "(", "x = f", ";", "@f"])))
def test_tests_are_python_or_there_are_none(pieces):
    try:
        tests = asserts_of(Reply("".join(pieces)), "def f(n):\n    return n + 1")
    except AskRefused as refused:
        assert refused.reason in ("no_tests", "unreadable_tests")
    else:
        compile(tests, "tests", "exec")
        assert "assert" in tests and "f" in tests


def test_given_problems_and_tests_of_a_benchmark_take_one_call():
    tasks = human_eval()[:12]
    table = {"given_problem": "{prompt}", "given_tests": "{test}\ncheck({entry_point})", "prelude": "{prompt}"}
    assert set(method_of("code", table).fields_read()) == {"prompt", "test", "entry_point"}
    rows = []
    for task in tasks:
        said = f"```python\n{task['prompt']}{task['canonical_solution']}\n```"
        rows.append(told("code", table, task, {"": said})[0])
        rows.append(told("code", table, task, {"": task["canonical_solution"]})[0])  # the body alone, as base models do
        rows.append(told("code", table, task, {"": "    return None"})[0])
    assert len({row["instruction"] for row in rows}) == 12
    found = verdicts(rows)
    assert found[0::3] == found[1::3] == ["passed"] * 12 and "passed" not in found[2::3]


def test_keys_are_checked_and_prompts_are_identity():
    for table, message in [
        ({"templates": {"problm": "x"}}, "did you mean 'problem'"),
        ({"templates": {"problem": "no hole"}}, "must hold {seed}"),
        ({"templates": {"solution": "{problem} {"}}, "plain braces"),
        ({"sampling": {"tests": {"temprature": 0}}}, "did you mean 'temperature'"),
        ({"structured": True, "given_tests": "{t}"}, "structured"),
        ({"given_problem": "{p}", "templates": {"problem": "{seed}"}}, "no such call"),
        ({"prelude": "{"}, "plain braces"),
        ({"samples": 0}, "at least 1"),
        ({"samples": 2, "structured": True}, "writes one solution"),
    ]:
        with pytest.raises(UserError, match=message):
            method_of("code", table)
    own = method_of("code", {"templates": {"tests": "{code} {hint}"}, "seed": "topic", "system": "{who}"})
    assert own.fields_read() == ["topic", "hint", "who"]
    assert (
        own.spec.wording["problem"] in own.identity()["templates"].values()
        and own.identity() != method_of("code", {}).identity()
    )


def test_a_call_samples_as_the_recipe_says_for_it():
    _, engine, _ = told("code", {"sampling": {"tests": {"temperature": 0.0}}, "system": "Be result."}, SEED, GOOD)
    assert [each["temperature"] for each in engine.sampling] == [0.5, 0.5, 0.0]
    assert engine.asked[0][0] == {"role": "system", "content": "Be result."}


def test_the_same_rows_again_however_they_are_batched():
    script = {
        "problem": [PROBLEM, Reply("cut", "length", 9, 9), PROBLEM + " Be quick."],
        "solution": [SOLUTION, "def twice(n): return n", "```\n```"],
        "tests": [TESTS, "nothing"],
    }
    rows = made("code", {}, [SEED] * 40, script)
    reasons = {row["reject"] for row in rows}
    assert reasons == {None, *(f"generator:{r}" for r in ("cut_problem", "empty_solution", "no_tests"))}
    assert all(len(row["turns"]) == 3 for row in rows if row["reject"] is None)


def test_an_assert_is_kept_once() -> None:
    said = Reply("```python\nassert f(1) == 2\nassert f(1)  ==  2\nx = 3\nassert f(x) == 4\nassert f(1) == 2\n```")
    assert asserts_of(said, "def f(n):\n    return n + 1") == "assert f(1) == 2\nx = 3\nassert f(x) == 4"


def test_several_samples_of_a_problem_are_one_row():
    script = {**GOOD, "solution": [Reply("def twice(n", "length", 1, 1), "def twice(n): return n", SOLUTION]}
    row, _, session = told("code", {"samples": 3}, SEED, script)
    assert row["codes"] == [None, "def twice(n): return n", "def twice(n):\n    return 2 * n"]
    assert row["code"] == row["codes"][1] and row["text"] == f"{PROBLEM}\n\n```python\n{row['code']}\n```"
    assert [turn["turn"] for turn in session.turns] == ["problem", *["solution"] * 3, "tests"]
    method = method_of("code", {"samples": 3})
    assert [field.name for field in method.payload][-1] == "codes" and method.most_tokens(10) == 50
    assert refusal("code", {"samples": 2}, SEED, {**GOOD, "solution": "```\n```"}) == "empty_solution"
