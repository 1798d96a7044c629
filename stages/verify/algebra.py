"""Compares pairs of expressions in the sandbox: the host's side of equality.py.

A comparison is a fork of a jail that has imported sympy already. So none can see or slow another, one that never ends
is killed when its CPU time is over, and what text is made to evaluate to can reach nothing.
"""

import importlib.util
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from gristmill.records.errors import UserError
from gristmill.records.spec import placement
from gristmill.stages.contract import Stage
from gristmill.stages.sandbox.runner import Limits, Sandbox, Verdict, Warm
from gristmill.stages.sandbox.runner import check as check_sandbox

Equality = Literal["right", "wrong", "unreadable", "timeout"]
IMPORTS = "from gristmill.stages.verify.equality import is_equal, warm"
# Anything else that a comparison may end as (an exception, too deep a nesting) means that it could not be read.
TOLD: dict[Verdict, Equality] = {"passed": "right", "failed": "wrong", "timeout": "timeout", "memory": "timeout"}
WALL_S = 600.0
PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")


@dataclass(frozen=True)
class AlgebraSpec:
    """Limits of one comparison."""

    deadline_s: int = 3  # of CPU time
    memory_mb: int = 1024  # of address space, sympy included
    workers: int = placement(1)  # comparisons at a time, in each worker of the run

    def __post_init__(self) -> None:
        if self.deadline_s < 1 or self.workers < 1:
            raise ValueError("deadline_s and workers must be at least 1")
        if self.memory_mb < 512:
            raise ValueError("memory_mb must be at least 512: sympy itself takes some of it")


def check(stage: str) -> None:
    """Raises UserError where expressions cannot be compared."""
    if importlib.util.find_spec("math_verify") is None:
        raise UserError(f"{stage}: package math-verify is missing; pip install 'math-verify[antlr4_13_2]'")
    try:
        check_sandbox()
    except UserError as error:
        raise UserError(f"{stage}: {error}; math = false compares by text and plain numbers alone") from None


def versions() -> dict[str, str]:
    """Of the packages whose verdicts these are."""
    return {name: version(name) for name in PACKAGES}


class Algebra:
    """Started at the first pair: most batches need none."""

    def __init__(self, spec: AlgebraSpec) -> None:
        self.spec = spec
        # Wall time is a backstop only, for a machine with more to do: which verdict it is must not hang on others.
        self.limits = Limits(cpu_s=spec.deadline_s, wall_s=WALL_S + spec.deadline_s, memory_mb=spec.memory_mb)
        self._sandbox: Sandbox | None = None

    def tell(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Equality]:
        """The verdict on each (found, expected); a pair that is there twice is compared once."""
        distinct = list(dict.fromkeys(pairs))
        if not distinct:
            return {}
        if self._sandbox is None:
            paths = sysconfig.get_paths()
            folders = tuple(dict.fromkeys((paths["purelib"], paths["platlib"])))
            self._sandbox = Sandbox(self.spec.workers, Warm(f"{IMPORTS}\nwarm()", folders))
        programs = [(IMPORTS, f"assert is_equal({found!r}, {expected!r})") for found, expected in distinct]
        ran = self._sandbox.run(programs, self.limits)
        return {pair: TOLD.get(outcome.verdict, "unreadable") for pair, outcome in zip(distinct, ran)}

    def close(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()


class Algebraic(Stage):
    """Base of the stages that compare answers, by algebra too where their spec says `math`, within `algebra`."""

    spec: Any

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._algebra = Algebra(spec.algebra)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_algebra": Algebra(self.spec.algebra)}

    def identity(self) -> dict[str, Any]:
        return versions() if self.spec.math else {}

    def check(self) -> None:
        if self.spec.math:
            check(self.name)

    def close(self) -> None:
        self._algebra.close()
