"""Checkers: which outputs are right beside the expected one, and checkers that are wrong themselves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.verify.checkers import CheckerSpec, compare_of
from gristmill.stages.verify.execute import Execute, ExecuteSpec

SCHEMA = pa.schema([(name, pa.string()) for name in ("text", "io", "checker", "reject")])
STAGES: dict[str, Execute] = {}  # by their settings: a sandbox takes a second to start


@pytest.fixture(scope="module", autouse=True)
def stages() -> Iterator[None]:
    yield
    while STAGES:
        STAGES.popitem()[1].close()


def spec(**checker: Any) -> ExecuteSpec:
    return build(ExecuteSpec, {"io": "io", "limits": {"cpu_s": 2}, "checker": checker}, "stages[0]")


def run(program: str, cases: list[tuple[str, str]], own: str | None = None, **checker: Any) -> dict[str, Any]:
    """The row of a program after the stage; `own` is its column `checker`."""
    stage = STAGES.setdefault(repr(checker), Execute(spec(**checker)))
    text = json.dumps([{"input": given, "output": expected} for given, expected in cases])
    batch = pa.RecordBatch.from_pylist([{"text": program, "io": text, "checker": own, "reject": None}], SCHEMA)
    return dict(stage.run(batch).to_pylist()[0])


def wrong(kind: str, output: str, expected: str, **keys: Any) -> str | None:
    return compare_of(CheckerSpec(kind=kind, **keys))("", expected, output)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "output", "expected", "detail"),
    [
        ("lines", "1 2\n", "1 2  \n\n", None),
        ("lines", "1  2", "1 2", "line 1 is '1  2', expected '1 2'"),
        ("tokens", " 1\n2\t3", "1 2 3\n", None),
        ("tokens", "1 2", "1 2 3", "token 3 is missing, expected '3'"),
        ("tokens", "1 2 3", "1 2", "token 3 is '3', expected no more tokens"),
        ("tokens", "1.0", "1", "token 1 is '1.0', expected '1'"),
        ("unordered_lines", "b\na \na\n", "a\na\nb", None),
        ("unordered_lines", "b\na\nb", "a\na\nb", "line 'b' is not expected so often"),
        ("unordered_lines", "1 2\n", "2 1", "line '1 2' is not expected"),
        ("unordered_lines", "b", "a\nb", "line 'a' is missing"),
        ("unordered_tokens", "3 1\n2", "1 2 3", None),
        ("unordered_tokens", "1 2", "1 2 2", "token '2' is missing"),
    ],
)
def test_kinds(kind: str, output: str, expected: str, detail: str | None) -> None:
    assert wrong(kind, output, expected) == detail


@pytest.mark.parametrize(
    ("output", "expected", "is_right"),
    [
        ("0.3333333", "0.333333333333", True),
        ("1.1", "1", False),
        ("1.000001", "1", True),  # the difference is the tolerance itself, which floats exceed
        ("1.00000100001", "1", False),
        ("1000000.9", "1000000", True),  # rel_tol
        ("1000001", "1000000", False),  # whole numbers
        ("9007199254740993", "9007199254740992", False),
        ("9007199254740993.0", "9007199254740993", True),
        ("+7", "007", True),
        ("1e3", "1000", True),
        ("-0.0", "0", True),
        ("-0", "0", True),
        ("nan", "NaN", True),
        ("nan", "1", False),
        ("1", "nan", False),
        ("inf", "Infinity", True),
        ("-inf", "inf", False),
        ("1e300", "inf", False),
        ("inf", "1e999", False),
        ("1e999", "1e999", True),
        ("yes 0.5", "yes 0.50", True),
        ("Yes 0.5", "yes 0.5", False),
        ("1_0", "10", False),  # Python reads it as a number, others do not
        ("٣", "3", False),
        ("0x10", "16", False),
        ("1,5", "1.5", False),
        ("", "0", False),
        ("1.0 2.0", "1.0", False),
    ],
)
def test_floats(output: str, expected: str, is_right: bool) -> None:
    assert (wrong("floats", output, expected) is None) == is_right


def test_tolerances() -> None:
    assert wrong("floats", "1.1", "1", abs_tol=0.1, rel_tol=0.0) is None
    assert wrong("floats", "110.0", "100", abs_tol=0.1, rel_tol=0.1) is None
    assert wrong("floats", "1.0000001", "1", abs_tol=0.0, rel_tol=0.0) == "token 1 is '1.0000001', expected '1'"


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "1", ""]), max_size=6)


@given(WORDS, WORDS, st.randoms(use_true_random=False))
def test_any_order_is_right_and_other_contents_are_not(words: list[str], others: list[str], random: Any) -> None:
    shuffled = random.sample(words, len(words))
    for kind, joint in (("unordered_lines", "|\n"), ("unordered_tokens", "|\n ")):
        texts = ["".join(f"{word}{joint}" for word in each) for each in (words, shuffled, others)]
        assert wrong(kind, texts[1], texts[0]) is None
        assert (wrong(kind, texts[2], texts[0]) is None) == (sorted(words) == sorted(others))


# Two numbers whose product is the input, in any order: there is no single right output.
FACTORS = """
def check(input, expected, output):
    words = output.split()
    return len(words) == 2 and int(words[0]) * int(words[1]) == int(input) and expected == "any"
"""


def test_a_checker_program_decides() -> None:
    cases = [("12", "any"), ("35", "any")]
    for program, verdict, detail in (
        ("n = int(input())\nprint(1, n)", "passed", None),
        ("n = int(input())\nprint(n)\nprint(1)", "passed", None),
        ("input(); print(3, 4)", "failed", "test 1: the checker refuses the output '3 4'"),
        ("input(); print('a', 'b')", "bad_checker", "test 0: ValueError: invalid literal for int() with base 10: 'a'"),
        ("print(1 / 0)", "error", "test 0: ZeroDivisionError: division by zero at program.py:1"),
    ):
        row = run(program, cases, kind="program", code=FACTORS)
        assert (row["execute_verdict"], row["reject"]) == (
            verdict,
            None if verdict == "passed" else f"execute:{verdict}",
        )
        assert (row["execute_detail"] or "").startswith(detail or "") and (detail is None) == (verdict == "passed")


@pytest.mark.parametrize(
    ("checker", "detail"),
    [
        ("def check(i, e, o): return 1", "test 0: AssertionError: check returned 1, neither True nor False"),
        ("def check(i, e, o): pass", "test 0: AssertionError: check returned None, neither True nor False"),
        ("def check(i, e): return True", "test 0: TypeError"),
        ("def check(i, e, o): assert False", "test 0: AssertionError"),
        ("def check(i, e, o): return o == 'x'\nimport sys; sys.exit(0)", "test 0: 0"),
        ("def check(i, e, o):\n    while True: pass", "test 0: timeout"),
        ("def test(i, e, o): return True", "test 0: NameError: name 'check' is not defined"),
        ("def check(", "test 0: "),
        (None, "the row has no checker"),
    ],
)
def test_a_wrong_checker_of_a_row_is_a_reason_of_its_own(checker: str | None, detail: str) -> None:
    row = run("print(1)", [("", "1")], checker, kind="program", column="checker")
    assert (row["reject"], row["execute_test"]) == ("execute:bad_checker", None)
    assert row["execute_detail"].startswith(detail)


def test_the_program_reaches_neither_its_checker_nor_the_expected_output() -> None:
    """The checker runs after the program, in another process and another folder."""
    program = "import os\nopen('checker.py', 'w').write('x')\nprint('def check(*a): return True')\nprint(os.listdir())"
    checker = "import os\ndef check(i, e, o): return os.listdir() == [] and e not in o and 'check' in o"
    assert run(program, [("", "secret")], kind="program", code=checker)["execute_verdict"] == "passed"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "program"}, "needs one of code, file and column"),
        ({"kind": "program", "code": FACTORS, "column": "a"}, "needs one of code, file and column"),
        ({"kind": "tokens", "code": FACTORS}, "other kinds none"),
        ({"kind": "tokens", "abs_tol": 0.1}, "keys of kind = 'floats'"),
        ({"kind": "floats", "rel_tol": -0.1}, "must not be negative"),
        ({"kind": "program", "code": "def check("}, "the checker is not Python"),
        ({"kind": "program", "code": "x = 1"}, "defines no function check"),
        ({"kind": "exact"}, "'lines', 'tokens'"),
    ],
)
def test_wrong_keys_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        spec(**table)
    assert message in str(error.value)


def test_a_checker_needs_io() -> None:
    with pytest.raises(UserError, match="compares the outputs of io"):
        build(ExecuteSpec, {"tests": "tests", "checker": {"kind": "tokens"}}, "stages[0]")


def test_a_file_is_part_of_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "checker.py"
    path.write_text(FACTORS)
    stage = Execute(spec(kind="program", file=str(path)))
    assert stage.identity()["checker"] == FACTORS
    path.write_text("x = 1")
    with pytest.raises(UserError, match="defines no function check"):
        stage.check()
