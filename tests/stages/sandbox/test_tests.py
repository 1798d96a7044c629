"""Tests in a process of their own: what they can do with a program, and what is said where they cannot."""

from collections.abc import Iterator

import pytest

from gristmill.stages.sandbox.runner import Limits, Outcome, Sandbox
from tests.stages.sandbox.cases import cases

LIMITS = Limits(cpu_s=20, wall_s=60)
HONEST = cases("honest.txt")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(1)
    yield sandbox
    sandbox.close()


def outcome(sandbox: Sandbox, program: str, tests: str, shared: bool = False) -> Outcome:
    return sandbox.run([(program, tests)], LIMITS, shared)[0]


@pytest.mark.parametrize("name", HONEST)
def test_honest_tests_pass_as_they_do_in_the_programs_own_process(name: str, sandbox: Sandbox) -> None:
    program, tests = HONEST[name]
    for shared in (False, True):
        result = outcome(sandbox, program, tests, shared)
        assert result.verdict == "passed", (shared, result)
    wrong = f"{tests}\nassert False, 'last'"
    result = outcome(sandbox, program, wrong)
    assert result.verdict == "failed" and result.detail is not None and "AssertionError: last" in result.detail


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(x): return x", "assert f(1) == 1\nassert f(1) == 2, 'two'"),
        ("def f(x): return 1 / x", "f(1)\nf(0)"),
        ("def f(x):\n    return g(x)\ndef g(x):\n    raise KeyError(x)", "f(0)"),
        ("class E(Exception): pass\ndef f(x):\n    raise E('no', 1)", "x = 1\nf(0)"),
        ("def f(g):\n    g()", "def g():\n    raise ValueError('in the tests')\nf(g)"),
        ("x = 1\nraise ValueError('early')", "assert x"),
        ("def f(x) return x", "assert f(1)"),
        ("def f(x): return x", "assert f(1)\nassert f("),
        ("def f(x): return x", "assert f(1)\nreturn 3"),
        ("def f(x): assert x, 'empty'", "f(1)\nf(0)"),
        ("assert False", "pass"),
        ("import sys\nsys.exit(2)", "pass"),
        ("import sys\ndef f(): sys.exit(2)", "f()"),
        ("import os\ndef f(): os._exit(4)", "f()"),
        ("import os\nos._exit(4)", "f()"),
        ("import ctypes\ndef f(): ctypes.string_at(0)", "f()"),
        ("def f():\n    while True: pass", "f()"),
        ("while True: pass", "pass"),
        ("x = 1", "while True: pass"),
        ("def f(): return bytearray(10**12)", "f()"),
        ("x = 1", "bytearray(10**12)"),
        ("def f():\n    while True: print('x' * 1000)", "f()"),
        ("def f():\n    for i in range(10**6): open(str(i), 'wb').write(bytes(10**6))", "f()"),
        ("def f(): return x", "f()"),
        ("def f(): raise ValueError(object())", "f()"),
        ("def f(): raise ValueError(chr(0xd800))", "f()"),
        ("class A: pass", "A().b"),
        ("def f(a): return a", "f(1, 2)"),
        ("x = 1", "y"),
        ("x = 1", "import os\nos._exit(0)"),
        ("x = 1", "raise SystemExit(3)"),
    ],
)
def test_verdicts_are_those_of_tests_in_the_programs_own_process(program: str, tests: str, sandbox: Sandbox) -> None:
    limits = Limits(cpu_s=1, wall_s=30, memory_mb=256, output_kb=16, file_mb=4, scratch_mb=8)
    apart, shared, again = (sandbox.run([(program, tests)], limits, flag)[0] for flag in (False, True, False))
    assert (apart.verdict, apart.detail, apart.test) == (shared.verdict, shared.detail, shared.test)
    assert (apart.verdict, apart.detail, apart.test, apart.exit) == (
        again.verdict,
        again.detail,
        again.test,
        again.exit,
    )
    assert apart.exit == shared.exit


@pytest.mark.parametrize(
    ("program", "tests", "reason"),
    [
        ("def f(x): return x", "import threading\nf(threading.Lock())", "a value of type lock of the tests"),
        ("def f(x): return x", "f(open('a', 'w'))", "a value of type TextIOWrapper of the tests"),
        ("def f(x): return x", "try: f(open('a', 'w'))\nexcept BaseException: pass", "TextIOWrapper"),
        ("def f(n): return 'x' * n", "f(40_000_000)", "too large to pass"),
        ("def f(x): return len(x)", "f('x' * 40_000_000)", "too large to pass"),
    ],
)
def test_what_tests_cannot_do_apart_is_said(program: str, tests: str, reason: str, sandbox: Sandbox) -> None:
    result = outcome(sandbox, program, tests)
    assert result.verdict == "error" and result.detail is not None and result.test is not None
    assert (
        result.detail.startswith("TestsUnsupported: ") and reason in result.detail and "shared = true" in result.detail
    )


def test_a_program_and_its_tests_share_the_limits(sandbox: Sandbox) -> None:
    burn = "import time\ndef burn(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
    limits = Limits(cpu_s=2, wall_s=60)
    assert sandbox.run([(burn, "burn(0.5)")], limits)[0].verdict == "passed"
    tests = f"mine = {{}}\nexec({burn!r}, mine)\nfor _ in range(20):\n    burn(0.1)\n    mine['burn'](0.1)"
    assert sandbox.run([(burn, tests)], limits)[0].verdict == "timeout"
