"""Compares pairs of expressions in the sandbox: the host's side of equality.py.

A comparison is a fork of a jail that has already imported sympy, with limits of its own. So no comparison can see or
slow another, one that does not end is killed when its CPU time is over, and what a text evaluates to can reach nothing.
"""

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.records.spec import placement
from gristmill.stages.contract import Stage
from gristmill.stages.sandbox.runner import Limits, Sandbox, Verdict, Warm
from gristmill.stages.sandbox.runner import check as check_sandbox

Equality = Literal["right", "wrong", "unreadable", "timeout"]
IMPORTS = "from gristmill.stages.verify.equality import is_equal, warm"
# Any other verdict (an exception, too deep a nesting) means that an expression is unreadable.
EQUALITIES: dict[Verdict, Equality] = {"passed": "right", "failed": "wrong", "timeout": "timeout", "memory": "timeout"}
WALL_S = 600.0
PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")


@dataclass(frozen=True)
class AlgebraSpec:
    """Limits of a comparison by algebra."""

    deadline_s: int = 3  # CPU seconds of a comparison, at least 1.
    memory_mb: int = 1024  # Address space of a comparison in MiB, at least 512, because sympy itself takes some of it.
    workers: int = placement(1)  # Concurrent comparisons in each worker of the run; changes no verdict.

    def __post_init__(self) -> None:
        if self.deadline_s < 1 or self.workers < 1:
            raise ValueError("deadline_s and workers must be at least 1")
        if self.memory_mb < 512:
            raise ValueError("memory_mb must be at least 512: sympy itself takes some of it")


def check(stage: str) -> None:
    """Raise UserError, with the name of the stage, if expressions cannot be compared here."""
    check_installed("math", "math_verify")
    try:
        check_sandbox()
    except UserError as error:
        raise UserError(f"{stage}: {error}; math = false compares by text and plain numbers only") from None


def versions() -> dict[str, str]:
    """Versions of the packages that decide the verdicts."""
    return {name: version(name) for name in PACKAGES}


class Algebra:
    """A sandbox for comparisons. It starts at the first pair, because most batches need none."""

    def __init__(self, spec: AlgebraSpec) -> None:
        self.spec = spec
        # Wall time is only a backstop: the verdict must not depend on the load of the machine.
        self.limits = Limits(cpu_s=spec.deadline_s, wall_s=WALL_S + spec.deadline_s, memory_mb=spec.memory_mb)
        self._sandbox: Sandbox | None = None

    def compare(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Equality]:
        """The verdict on each pair (answer, expected); equal pairs are compared once."""
        distinct = list(dict.fromkeys(pairs))
        if not distinct:
            return {}
        if self._sandbox is None:
            paths = sysconfig.get_paths()
            folders = tuple(dict.fromkeys((paths["purelib"], paths["platlib"])))
            self._sandbox = Sandbox(self.spec.workers, Warm(f"{IMPORTS}\nwarm()", folders))
        programs = [(IMPORTS, f"assert is_equal({answer!r}, {expected!r})") for answer, expected in distinct]
        outcomes = self._sandbox.run(programs, self.limits, shared=True)  # the program is ours
        return {pair: EQUALITIES.get(outcome.verdict, "unreadable") for pair, outcome in zip(distinct, outcomes)}

    def close(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()


class Algebraic(Stage):
    """Base class of stages that compare answers, by algebra too if their spec has `math`.

    The spec's `algebra` holds the limits of a comparison.
    """

    spec: Any

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._algebra = Algebra(spec.algebra)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_algebra": Algebra(self.spec.algebra)}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), **(versions() if self.spec.math else {})}

    def check(self) -> None:
        if self.spec.math:
            check(self.name)

    def close(self) -> None:
        self._algebra.close()
