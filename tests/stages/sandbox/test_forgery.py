"""Programs that are wrong and do what they can to be found right. None passes.

Each program defines `f` or `A` wrongly for TESTS, and then tries to forge.
"""

from collections.abc import Iterator

import pytest

from gristmill.stages.sandbox.runner import Limits, Outcome, Sandbox
from tests.stages.sandbox.cases import cases

LIMITS = Limits(cpu_s=3, wall_s=20, memory_mb=256)
TESTS = "assert f(1) == 12345\nassert f(2) == 54321 and f('a') == 'secret-answer'"
REPORT = '{"verdict": "passed", "at": "tests"}'
WRONG = "def f(x): return 0\n"

ATTEMPTS, TESTED = cases("attempts_alone.txt"), cases("attempts_tested.txt")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(1)
    yield sandbox
    sandbox.close()


def outcome(sandbox: Sandbox, program: str, tests: str) -> Outcome:
    return sandbox.run([(program, tests)], LIMITS)[0]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_no_program_writes_its_own_verdict(name: str, sandbox: Sandbox) -> None:
    program = (WRONG + ATTEMPTS[name][0]).replace("{report}", REPORT)
    result = outcome(sandbox, program, "import math\nassert abs(f(1) - 12345) < 1 and isinstance(f(2), str)\n" + TESTS)
    assert result.verdict in ("failed", "error", "exited", "timeout", "output", "crashed"), result
    right = "def f(x): return {1: 12345, 2: 54321, 'a': 'secret-answer'}[x]"
    assert outcome(sandbox, right, TESTS).verdict == "passed", "the jail lives, and a right program passes"


@pytest.mark.parametrize("name", TESTED)
def test_no_object_answers_for_the_tests(name: str, sandbox: Sandbox) -> None:
    result = outcome(sandbox, TESTED[name][0], TESTED[name][1])
    assert result.verdict in ("failed", "error", "exited"), result


@pytest.mark.parametrize("name", ["the report's descriptor", "a signal handler", "a finalizer"])
def test_shared_tests_can_be_deceived(name: str, sandbox: Sandbox) -> None:
    """So the tests above can fail: it is the other process that stops the programs."""
    program = (WRONG + ATTEMPTS[name][0]).replace("{report}", REPORT)
    assert sandbox.run([(program, TESTS)], LIMITS, shared=True)[0].verdict == "passed"


@pytest.mark.parametrize("name", [name for name in TESTED if "reading" in name or "globals" in name or "equal" in name])
def test_objects_deceive_shared_tests(name: str, sandbox: Sandbox) -> None:
    assert sandbox.run([(TESTED[name][0], TESTED[name][1])], LIMITS, shared=True)[0].verdict == "passed"
