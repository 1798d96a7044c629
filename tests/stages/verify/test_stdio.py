"""Inputs and outputs as tests: their shapes, how outputs compare, and what the stage says of a program."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.spec import build
from gristmill.stages.verify.checkers import difference
from gristmill.stages.verify.execute import Execute, ExecuteSpec
from gristmill.stages.verify.stdio import BadTests, cases_of

SUM = "import sys\nprint(sum(int(word) for word in sys.stdin.read().split()))"
CASES = json.dumps([{"input": "1 2\n", "output": "3\n"}, {"input": "4\n5\n", "output": "9"}])


SCHEMA = pa.schema([(name, pa.string()) for name in ("text", "tests", "io", "reject")])
STAGES: dict[str, Execute] = {}  # by their settings: a sandbox takes a second to start


@pytest.fixture(scope="module", autouse=True)
def stages() -> Iterator[None]:
    yield
    while STAGES:
        STAGES.popitem()[1].close()


def run(rows: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    table = {"io": "io", "limits": {"cpu_s": 2}, **settings}
    stage = STAGES.setdefault(repr(table), Execute(build(ExecuteSpec, table, "stages[0]")))
    batch = pa.RecordBatch.from_pylist([{"tests": None, "reject": None, **row} for row in rows], SCHEMA)
    return stage.run(batch).to_pylist()


def verdicts(programs: list[str], cases: str = CASES, **settings: Any) -> list[tuple[str, int | None, str | None]]:
    rows = run([{"text": program, "io": cases} for program in programs], **settings)
    return [(row["execute_verdict"], row["execute_test"], row["execute_detail"]) for row in rows]


@pytest.mark.parametrize(
    "program",
    [
        SUM,
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())), end='')",
        "print(sum(map(int, open(0).read().split())), '  \\n\\n')",
        "t = 0\ntry:\n    while True: t += sum(map(int, input().split()))\nexcept EOFError: print(t)",
        "import sys\nif __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())))\n    sys.exit()",
        f"{SUM}\nexit(0)",
        f"{SUM}\nsys.stdout.flush()\nimport os\nos._exit(0)",
        f"{SUM}\nprint('note', file=sys.stderr)",
        f"Here:\n```python\n{SUM}\n```",
    ],
)
def test_right_programs_pass(program: str) -> None:
    assert verdicts([program]) == [("passed", None, None)]


@pytest.mark.parametrize(
    ("program", "verdict", "number", "detail"),
    [
        ("print(3)", "failed", 1, "test 1: line 1 is '3', expected '9'"),
        ("print(3, 4)", "failed", 0, "test 0: line 1 is '3 4', expected '3'"),
        ("pass", "failed", 0, "test 0: line 1 is missing, expected '3'"),
        (f"{SUM}\nprint('more')", "failed", 0, "test 0: line 2 is 'more', expected no more lines"),
        (f"print(' ', end='')\n{SUM}", "failed", 0, "test 0: line 1 is ' 3', expected '3'"),
        ("print('3' * 500)", "failed", 0, f"test 0: line 1 is '{'3' * 80}...', expected '3'"),
        (f"{SUM}\n1 / 0", "error", 0, "test 0: ZeroDivisionError: division by zero at program.py:3"),
        (f"{SUM}\nsys.exit(1)", "exited", 0, "test 0: 1"),
        (f"{SUM}\nimport os\nos._exit(1)", "exited", 0, "test 0"),
        ("print(3\n", "syntax", 0, "test 0: '(' was never closed (line 1)"),
        ("while True: pass", "timeout", 0, "test 0"),
        ("print('x' * 100000)", "output", 0, "test 0"),
        ('import os\nos.write(3, b\'{"verdict": "passed", "at": "tests"}\')\nos._exit(0)', "failed", 0, None),
        ("import os\nfor n in range(3, 50):\n    try: os.write(n, b'3')\n    except OSError: pass", "failed", 0, None),
    ],
)
def test_wrong_programs_fail_at_a_test(program: str, verdict: str, number: int, detail: str | None) -> None:
    ((*place, text),) = verdicts([program])
    assert place == [verdict, number] and text is not None and detail in (None, text)
    assert verdicts([program]) == [(verdict, number, text)]


def test_a_large_expected_output_is_within_the_limit() -> None:
    cases = json.dumps([{"input": "", "output": "x" * 200_000}])
    assert verdicts(["print('x' * 200000)"], cases) == [("passed", None, None)]


def test_statements_and_inputs_together() -> None:
    program = f"def f(x): return x + 1\nif __name__ == '__main__':\n    {SUM.replace(chr(10), chr(10) + '    ')}"
    rows = [
        {"text": program, "tests": "assert f(1) == 2", "io": CASES},
        {"text": program, "tests": "assert f(1) == 3", "io": CASES},
        {"text": program, "tests": "assert f(1) == 2", "io": json.dumps([{"input": "1", "output": "2"}])},
        {"text": program, "tests": "assert f(1) == 2", "io": None},
        {"text": program, "tests": "", "io": "[]"},
    ]
    found = run(rows, tests="tests")
    assert [row["execute_verdict"] for row in found] == ["passed", "failed", "failed", "passed", "no_tests"]
    assert found[2]["execute_detail"] == "test 0: line 1 is '1', expected '2'"
    assert [row["reject"] for row in found][:2] == [None, "execute:failed"]


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ('[{"input": "1", "output": "2"}]', [("1", "2")]),
        ('[{"input": "1", "output": "2", "id": 7}]', [("1", "2")]),
        ('{"inputs": ["1", "a"], "outputs": ["2", "b"]}', [("1", "2"), ("a", "b")]),
        ('{"input": ["1"], "output": ["2"]}', [("1", "2")]),
        ('{"inputs": [["1", "2"]], "outputs": [["3", "4"]]}', [("1\n2", "3\n4")]),
        ("[]", []),
        ("", []),
        (None, []),
    ],
)
def test_shapes(text: str | None, cases: list[tuple[str, str]]) -> None:
    assert cases_of(text) == cases


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "not JSON"),
        ("3", "not int"),
        ("null", "not NoneType"),
        ('["a"]', "test 0 is no object"),
        ('[{"input": "1"}]', "test 0 has no 'output'"),
        ('[{"input": "1", "output": "1"}, {"input": 1, "output": "2"}]', "'input' of test 1 is no text"),
        ('[{"input": [1], "output": "2"}]', "'input' of test 0 is no text"),
        ('{"inputs": ["1"]}', "'outputs' is no list"),
        ('{"inputs": ["1"], "outputs": []}', "1 inputs and 0 outputs"),
        ('{"tests": []}', "'input' is no list"),
        ('{"fn_name": "f", "inputs": [[1]], "outputs": [[2]]}', "they call a function"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_wrong_shapes_are_rejected_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(BadTests) as error:
        cases_of(text)
    assert reason in str(error.value)
    (row,) = run([{"text": SUM, "io": text}])
    assert row["reject"] == "execute:bad_tests" and reason in row["execute_detail"] and row["execute_test"] is None


LINES = st.lists(st.text(st.sampled_from("ab \t"), max_size=4), max_size=5)


@given(LINES, LINES)
def test_outputs_differ_if_their_lines_without_white_space_at_the_end_do(lines: list[str], wanted: list[str]) -> None:
    def bare(lines: list[str]) -> list[str]:
        rest = [line.rstrip() for line in lines]
        while rest and not rest[-1]:
            rest.pop()
        return rest

    assert (difference("\n".join(lines), "\n".join(wanted)) is None) == (bare(lines) == bare(wanted))
