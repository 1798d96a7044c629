"""Tests of whole programs: an input text each, and the output that is expected for it.

Two shapes are read: a list of objects with `input` and `output`, and an object with the lists `inputs` and `outputs`
(or `input` and `output`). A text may be a list of its lines. A checker (checkers.py) compares outputs.
"""

import json
from dataclasses import replace
from typing import Any

from gristmill.stages.sandbox.runner import Job, Limits, Outcome, Sandbox
from gristmill.stages.verify.checkers import BadChecker, Compare


class BadTests(ValueError):
    """Tests of a wrong shape."""


def cases_of(text: str | None) -> list[tuple[str, str]]:
    """(input, expected output) of each test. Raises BadTests with the reason."""
    if text is None or not text.strip():
        return []
    try:
        tests = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTests(f"not JSON: {error}") from None
    if isinstance(tests, dict):
        if tests.get("fn_name"):
            raise BadTests("they call a function (fn_name); put statements into the column of `tests`")
        tests = _from_lists(tests)
    if not isinstance(tests, list):
        raise BadTests(f"a list of tests or an object with 'inputs' and 'outputs', not {type(tests).__name__}")
    return [_case(test, number) for number, test in enumerate(tests)]


def _from_lists(tests: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("inputs", "outputs") if "inputs" in tests or "outputs" in tests else ("input", "output")
    inputs, outputs = (tests.get(name) for name in names)
    for name, values in zip(names, (inputs, outputs)):
        if not isinstance(values, list):
            raise BadTests(f"'{name}' is no list")
    assert isinstance(inputs, list) and isinstance(outputs, list)
    if len(inputs) != len(outputs):
        raise BadTests(f"{len(inputs)} inputs and {len(outputs)} outputs")
    return [{"input": given, "output": expected} for given, expected in zip(inputs, outputs)]


def _case(test: Any, number: int) -> tuple[str, str]:
    if not isinstance(test, dict):
        raise BadTests(f"test {number} is no object")
    return _text(test, "input", number), _text(test, "output", number)


def _text(test: dict[str, Any], name: str, number: int) -> str:
    if name not in test:
        raise BadTests(f"test {number} has no '{name}'")
    value = test[name]
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise BadTests(f"'{name}' of test {number} is no text")
    return value


def run_cases(
    sandbox: Sandbox, program: str, cases: list[tuple[str, str]], limits: Limits, compare: Compare
) -> Outcome:
    """Run a program once for each test, until one fails. The limits hold for each run.

    The output limit grows by the size of the expected output. Raises BadChecker with the number of the test.
    """
    outcome = Outcome("passed", at="tests", exit=0)
    for number, (given, expected) in enumerate(cases):
        size_kb = len(expected.encode("utf-8", "replace")) // 1024
        outcome = sandbox.one(Job(program, stdin=given), replace(limits, output_kb=limits.output_kb + size_kb))
        if not _is_at_end(outcome):
            return replace(outcome, test=number, at="tests", detail=_named(number, outcome.detail))
        try:
            detail = compare(given, expected, outcome.output)
        except BadChecker as error:
            raise BadChecker(_named(number, str(error))) from None
        outcome = replace(outcome, verdict="passed", detail=None)
        if detail is not None:
            return replace(outcome, verdict="failed", test=number, at="tests", detail=_named(number, detail))
    return outcome


def _is_at_end(outcome: Outcome) -> bool:
    """Whether a program ended without an error: at its last line, or by an exit with 0."""
    is_exit = outcome.verdict == "exited" and outcome.exit == 0 and outcome.detail in (None, "None", "0")
    return outcome.verdict == "passed" or is_exit


def _named(number: int, detail: str | None) -> str:
    return f"test {number}" + (f": {detail}" if detail else "")
