r"""The stage `answer`: known equal and unequal answers, hostile ones, and the laws of comparing by text and numbers."""

import os
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.verify import algebra, answer_text
from gristmill.stages.verify.answer import Answer, AnswerSpec
from gristmill.stages.verify.answer_text import RULES, compare, extract, key, normal, number_of
from tests.profiles import scaled

SCHEMA = pa.schema([("answer", pa.string()), ("reference", pa.string()), ("reject", pa.string())])
EQUAL = [
    ("1/2", "0.5"), (r"\frac12", "1/2"), (r"$\dfrac{1}{2}$", "0.5"), ("1,234", "1234"), (r"1{,}234.50", "1234.5"),
    ("$42", "42"), (r"\$1,000", "1000"), ("72 clips", "72"), ("50%", "0.5"), (r"50\%", "50"), ("½", "0.5"),
    ("0.333333", "1/3"), ("3.14159", "3.1415926"), ("1.5e3", "1500"), (r"1.5 \times 10^{3}", "1500"), ("10^3", "1000"),
    ("−7", "-7"), ("**42**", "42"), (r"\(x+1\)", "x + 1"), ("Paris.", "paris"), ("(B)", "B"), (r"\text{even}", "Even"),
    ("3 1/2", "3.5"), ("3½", "7/2"), ("-3 ½", "-3.5"), ("1,234 1/2", "1234.5"), ("$3 1/2$", r"3\frac{1}{2}"),
    ("1 234 567", "1234567"), (r"1\,234.5", "1234.5"), ("50 %", "0.5"), ("- 7", "-7"), ("1 / 2", "0.5"),
    ("3½%", "3.5%"), ("AB", "ab"), ("3A2B", "3a2b"), (r"\text{HT}", "ht"),
]  # fmt: skip
UNEQUAL = [
    ("7", "8"), ("0.33", "1/3"), ("12", "1.2"), ("72 clips", "73"), ("listen", "silent"), ("no", "on"),
    ("1000001", "1000000.5"), ("London", "Paris"), ("5 apples and 3 pears", "3"),
    ("BA", "AB"), ("HT", "th"), ("3a2b", "2b3a"), ("ABC", "CBA"), ("aab", "aba"), ("3a2b", "6ab"), ("A1", "1A"),
    ("3 1/2", "15.5"), ("3½", "31/2"), ("3½", "15.5"), ("2 3/4", "23/4"),
]  # fmt: skip
BY_ALGEBRA = [
    (r"2\sqrt{2}", r"\sqrt{8}", "right"),
    ("(x+1)^2", "x^2+2x+1", "right"),
    ("x**2 + 1", "1+x^2", "right"),
    ("x=5", "5", "right"),
    (r"\{1,2\}", r"\{2,1\}", "right"),
    (r"a\ge 3", r"3\le a", "right"),
    (r"90^\circ", "90", "right"),
    (r"1\frac12", "1.5", "right"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}", "wrong"),
    ("x+1", "x+2", "wrong"),
    ("!!! ??", "5", "unreadable"),
    (r"\frac{", "5", "unreadable"),
    ("5 10", "510", "wrong"),
    ("1/2 3", "1/23", "wrong"),
    ("1, 234", "1234", "wrong"),
    ("2^½", "1", "wrong"),
    ("1, 3, 2", "3, 1, 2", "wrong"),
    ("1, 2", r"\{2, 1\}", "right"),
]
HOSTILE = [
    "9^{9^{9^{9}}}",
    "9**9**9**9",
    "(" * 400,
    r"\sqrt{" * 80 + "2" + "}" * 80,
    r"\int" * 100,
    "__import__('os').system('touch /tmp/escaped-answer')",
    r"\sum_{n=1}^{10^{12}} n^n",
    "1000000000!",
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Answer]:
    made = Answer(build(AnswerSpec, {"algebra": {"deadline_s": 1}}, "stages[0]"))
    made.check()
    yield made
    made.close()


def run(stage: Answer, rows: list[tuple[str | None, str | None]]) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pylist([{"answer": a, "reference": r, "reject": None} for a, r in rows], SCHEMA)
    found: list[dict[str, Any]] = stage.run(batch).to_pylist()
    return found


def test_plain_answers_are_told_without_algebra() -> None:
    for one, other in EQUAL:
        assert compare(one, other) == compare(other, one) == "right", (one, other)
    for one, other in UNEQUAL:
        assert compare(one, other) == compare(other, one) == "wrong", (one, other)


def test_algebra_tells_the_rest(stage: Answer) -> None:
    assert all(compare(one, other) is None for one, other, _ in BY_ALGEBRA)
    told = run(stage, [(one, other) for one, other, _ in BY_ALGEBRA])
    assert [row["answer_verdict"] for row in told] == [verdict for _, _, verdict in BY_ALGEBRA]
    assert [row["reject"] for row in told] == [None if v == "right" else f"answer:{v}" for _, _, v in BY_ALGEBRA]


def test_without_algebra_it_is_unreadable_what_text_cannot_tell() -> None:
    plain = Answer(AnswerSpec(math=False))
    told = run(plain, [("(x+1)^2", "x^2+2x+1"), ("0.5", "1/2"), (None, "1"), ("1", None), ("", "1")])
    verdicts = [row["answer_verdict"] for row in told]
    assert verdicts == ["unreadable", "right", "no_answer", "no_reference", "no_answer"]
    assert plain.identity() == {"revision": Answer.revision}


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda h: h[:16])
def test_hostile_answers_end_at_their_deadline_and_the_worker_goes_on(stage: Answer, hostile: str) -> None:
    started = time.process_time()
    first, second, after = run(stage, [(hostile, "x^2+7"), ("x^2+7", hostile), ("2x+1", "1+2x")])
    assert {first["answer_verdict"], second["answer_verdict"]} <= {"wrong", "unreadable", "timeout"}
    assert after["answer_verdict"] == "right" and time.process_time() - started < 5
    assert not os.path.exists("/tmp/escaped-answer")


def test_algebra_draws_the_same_numbers_every_time() -> None:
    """sympy's own generators have no seed, so how they stand after a comparison tells whether it was seeded."""
    from sympy.core import random

    from gristmill.stages.verify.equality import is_equal

    stand = []
    for start in (1, 2):
        random.seed(start)
        assert is_equal(r"\sin(2x)", r"2\sin x\cos x") and not is_equal("x+1", "x+2")
        stand.append((random.rng.getstate(), random._assumptions_rng.getstate()))
    assert stand[0] == stand[1]


def test_a_power_without_end_is_a_timeout(stage: Answer) -> None:
    assert run(stage, [("9^{9^{9^{9}}}", "x^2+7")])[0]["reject"] == "answer:timeout"


def test_findings_show_the_answers_as_they_stand() -> None:
    text = "So 3 + 4 = 7.\nThe answer is **7**. Hope this helps!"
    spec = {"extract": ["boxed", "hash", "phrase", "number"], "keep": ["right", "wrong"], "math": False}
    stage = Answer(build(AnswerSpec, spec, "stages[0]"), "final")
    right, wrong = run(stage, [(text, "3 + 4 = 7\n#### 7"), (r"It is \boxed{\frac{1}{2}}", "#### 2")])
    assert (right["final_found"], right["final_expected"], right["final_verdict"]) == ("7", "7", "right")
    assert (wrong["final_found"], wrong["final_verdict"], wrong["reject"]) == (r"\frac{1}{2}", "wrong", None)


@pytest.mark.parametrize(
    ("text", "rule", "found"),
    [
        (r"\boxed{1} and then \boxed{\frac{1}{2}}", "boxed", r"\frac{1}{2}"),
        (r"\boxed{1} and then \boxed{2", "boxed", "1"),
        ("#### 12\nno\n####  3,000 ", "hash", "3,000"),
        ("The final answer is: 42. I hope it helps.", "phrase", "42"),
        ("**Answer:** 3.5 metres\nmore", "phrase", "3.5 metres"),
        ("The answer is 1. No: the answer is x = 2!", "phrase", "x = 2"),
        ("from 3 to 4 it is -1,234.5.", "number", "-1,234.5"),
        ("he ate 3/4 of v2.0 cakes", "number", "3/4"),
        ("no number", "number", None),
        ("  all of it ", "whole", "all of it"),
        ("   ", "whole", None),
    ],
)
def test_extract(text: str, rule: Any, found: str | None) -> None:
    assert extract(text, (rule,)) == found


def test_refusals() -> None:
    for spec in ({"extract": []}, {"extract": ["last"]}, {"keep": ["correct"]}, {"algebra": {"memory_mb": 64}}):
        with pytest.raises(UserError, match="stages"):
            build(AnswerSpec, spec, "stages[0]")


def test_a_missing_sandbox_is_said_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise UserError("programs cannot be run here: no Landlock")

    monkeypatch.setattr(algebra, "check_sandbox", none)
    with pytest.raises(UserError, match="math = false"):
        Answer(AnswerSpec()).check()
    Answer(AnswerSpec(math=False)).check()


INTEGERS = st.integers(-(10**12), 10**12)
FRACTIONS = st.tuples(st.integers(-9999, 9999), st.integers(1, 9999))
PIECES = [r"\frac", "{", "}", "1", "x", r"\boxed{", "$", "####", "answer is", " ", "e9", "%", r"\text{"]
ANYTHING = st.one_of(
    st.text(max_size=60),
    st.text("0123456789.,+-/%$ ()[]{}^\\_", max_size=40),
    st.lists(st.sampled_from(PIECES)).map("".join),
)


def looks(value: Fraction) -> st.SearchStrategy[str]:
    """Ways in which a number may be written."""
    ways = [f"{value.numerator}/{value.denominator}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"]
    if value.denominator == 1:
        ways += [str(value.numerator), f"{value.numerator:,}", f"{value.numerator}.0", f"${value.numerator}$"]
    return st.sampled_from([*ways, *(f" {w}. " for w in ways), *(f"\\({w}\\)" for w in ways)])


@given(st.data(), FRACTIONS.map(lambda f: Fraction(*f)), FRACTIONS.map(lambda f: Fraction(*f)))
def test_numbers_are_compared_by_value_however_written(data: st.DataObject, one: Fraction, other: Fraction) -> None:
    first, second = data.draw(looks(one)), data.draw(looks(other))
    assert compare(first, data.draw(looks(one))) == "right"
    assert compare(first, second) == compare(second, first) == ("right" if one == other else "wrong")
    assert (key(first) == key(second)) == (one == other)


@given(INTEGERS, INTEGERS)
def test_distinct_integers_are_never_equal(one: int, other: int) -> None:
    for first in (str(one), f"{one:,}", f"{one}.00", f"{one}.000000"):
        for second in (str(other), f"{other}.0"):
            assert compare(first, second) == ("right" if one == other else "wrong")


@given(st.integers(0, 99_999), st.integers(0, 99_999), st.sampled_from([" ", "  ", "\u00a0", r"\;", "\n"]))
def test_digits_are_never_joined_over_a_space_but_in_groups_of_three(one: int, other: int, space: str) -> None:
    text, joined = f"{one}{space}{other}", f"{one}{other}"
    is_group = 0 < one < 1000 and 100 <= other < 1000
    assert number_of(text) == (number_of(joined) if is_group else None)
    assert (key(text) == key(joined)) == (compare(text, joined) == "right") == is_group
    for inner in (f"1/{text}", f"{joined}/{text}", f"x {text} y"):
        assert is_group or (number_of(inner) is None and compare(inner, inner.replace(space, "")) != "right")


@given(st.integers(0, 9999), st.tuples(st.integers(0, 99), st.integers(1, 99)), st.sampled_from(["", "-"]))
def test_a_mixed_number_is_its_sum(whole: int, part: tuple[int, int], sign: str) -> None:
    above, below = part
    for text in (f"{sign}{whole} {above}/{below}", rf"{sign}{whole}\frac{{{above}}}{{{below}}}"):
        found, value = number_of(text), whole + Fraction(above, below)
        assert found is None if above >= below else found is not None and found.value == (-value if sign else value)


LONG = st.sampled_from(["x", "ab ", "1", "π", "$", "{"]).map(lambda piece: piece * 2001)


@given(LONG, st.text("ab1 ", max_size=9), st.text("ab1 ", max_size=9))
def test_long_answers_that_differ_at_their_end_are_not_the_same(long: str, one: str, other: str) -> None:
    told = compare(long + one, long + other)
    assert told == ("right" if one == other else "unreadable")
    assert compare("5" + " " * 2000 + one, "5") != "right" or not one.strip()


def boxed(text: str) -> str | None:
    """The last box, found slowly."""
    for opening in reversed(list(re.finditer(r"\\(?:boxed|fbox)\s*\{", text))):
        for end in range(opening.end(), len(text)):
            inside = text[opening.end() : end]
            if text[end] == "}" and inside.count("{") == inside.count("}"):
                return inside.strip() or None
    return None


@given(st.lists(st.sampled_from([r"\boxed{", r"\fbox {", "{", "}", "x", " "]), max_size=30).map("".join))
def test_the_last_balanced_box_is_found(text: str) -> None:
    assert extract(text, ("boxed",)) == boxed(text)


@pytest.mark.parametrize("text", [r"\boxed{" * 20_000, "answer is" + " " * 30_000 + "\nx", "{" * 90_000 + "}" * 90_000])
def test_long_texts_take_no_long_time(text: str) -> None:
    started = time.process_time()
    for rule in RULES:
        extract(text, (rule,))
    assert time.process_time() - started < 2


def test_long_answers_are_not_kept_in_memory() -> None:
    caches = (answer_text._normal, answer_text._number_of)
    for cache in caches:
        cache.cache_clear()
    for text in ("x" * 501, "7" * 501, "x" * 20_000):
        assert key(text) == text and number_of(text) is None and normal(text)
    assert [cache.cache_info().currsize for cache in caches] == [0, 0]


@given(ANYTHING, ANYTHING)
def test_any_two_texts_are_compared_symmetrically_and_alike_to_themselves(one: str, other: str) -> None:
    assert compare(one, one) == "right"
    assert compare(one, other) == compare(other, one)
    assert normal(one) == normal(one.strip()) and (number_of(one) is None or number_of(one) == number_of(f" {one} "))


@given(ANYTHING, st.lists(st.sampled_from(sorted(RULES)), min_size=1))
def test_what_is_extracted_stands_in_the_text(text: str, rules: list[Any]) -> None:
    found = extract(text, rules)
    assert found is None or (found and found in text and found == found.strip())


@settings(max_examples=scaled(15), deadline=None)
@given(st.lists(st.tuples(ANYTHING, ANYTHING), max_size=2))
def test_no_text_stops_the_stage(stage: Answer, rows: list[tuple[str, str]]) -> None:
    encodable = [(a.encode("utf-8", "replace").decode(), b.encode("utf-8", "replace").decode()) for a, b in rows]
    told = run(stage, [*encodable, ("x+1", "1+x")])
    assert told[-1]["answer_verdict"] == "right" and len(told) == len(rows) + 1


def test_the_pass_rate_of_several_answers_keeps_problems_of_a_difficulty() -> None:
    schema = pa.schema([*SCHEMA][:2] + [pa.field("answers", pa.list_(pa.string())), SCHEMA.field("reject")])
    rows = [
        ("7", "7", ["7", "7.0", "7"]),
        ("7", "7", ["7", "8", None, "8"]),
        ("1/2", "0.5", ["0.5", "The answer is 1/2.", r"\\boxed{3}"]),
        ("8", "7", ["8", "7"]),
        ("7", "7", []),
        ("7", None, ["7"]),
    ]
    table = {"math": False, "samples": "answers", "min_pass_rate": 0.5, "max_pass_rate": 0.9}
    stage = Answer(build(AnswerSpec, table, "stages[0]"))
    batch = pa.RecordBatch.from_pylist([dict(zip(schema.names, [*row, None])) for row in rows], schema)
    found = [
        (row["answer_verdict"], row["answer_pass_rate"], row["answer_num_samples"], row["reject"])
        for row in stage.run(batch).to_pylist()
    ]
    assert found == [
        ("right", 1.0, 3, "answer:too_easy"),
        ("right", 0.25, 4, "answer:too_hard"),
        ("right", pytest.approx(2 / 3), 3, None),
        ("wrong", 0.5, 2, "answer:wrong"),
        ("right", None, 0, "answer:too_hard"),
        ("no_reference", None, 1, "answer:no_reference"),
    ]
    assert stage.refuses(pa.field("answers", pa.string())) == "is not a list of texts"
    with pytest.raises(UserError, match="name their column"):
        build(AnswerSpec, {"max_pass_rate": 0.5}, "stages[0]")
