"""Runs programs against their tests in the sandbox, and rejects those that do not pass.

The code is the text column, or the first fenced block in it; the tests come from a column of the row or from the
recipe. Nothing runs without the sandbox. The verdict holds for honest programs: code can deceive tests that run beside
it, as in every such benchmark, but it cannot leave the sandbox.
"""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.stages.contract import Findings, Stage
from gristmill.stages.sandbox.runner import Limits, Outcome, Sandbox, check

FENCE = re.compile(r"```[ \t]*(?:python|py)?[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
MAX_DETAIL = 500


@dataclass(frozen=True)
class ExecuteSpec:
    """Keys of the stage `execute`."""

    code: str = "text"  # Column with the program, or with text that contains it.
    tests: str | None = None  # Column with the row's tests: statements, usually asserts; by default there are none.
    add: str = ""  # Statements after the tests of each row, for example "check(candidate)".
    fenced: bool = True  # Whether the program is the first fenced block of a text that has one.
    limits: Limits = field(default_factory=Limits)  # Limits of a program.
    workers: int = 1  # Concurrent programs in each worker of the run.
    # Whether a row without tests is rejected; otherwise it passes if its program runs to the end.
    need_tests: bool = True


class Execute(Stage):
    """Adds `execute_verdict`, `execute_detail`, `execute_test` and `execute_exit`.

    A row whose verdict is not passed is rejected for it. Verdicts: passed, failed, error, syntax, timeout, memory,
    output, files, exited, crashed, no_code, no_tests. The detail is the exception and its line, the test the number of
    the statement of the tests that failed, from 0.
    """

    kind: ClassVar[str] = "execute"
    Spec: ClassVar[type] = ExecuteSpec
    spec: ExecuteSpec

    def __init__(self, spec: ExecuteSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._sandbox: Sandbox | None = None

    def columns(self) -> list[pa.Field]:
        return [
            pa.field(f"{self.name}_verdict", pa.string()),
            pa.field(f"{self.name}_detail", pa.string()),
            pa.field(f"{self.name}_test", pa.int32()),
            pa.field(f"{self.name}_exit", pa.int32()),
        ]

    def reads(self) -> list[str]:
        return [self.spec.code, *([self.spec.tests] if self.spec.tests else [])]

    def check(self) -> None:
        check()

    def open(self) -> None:
        self._sandbox = Sandbox(self.spec.workers)

    def close(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sandbox": None}

    def find(self, rows: pa.RecordBatch) -> Findings:
        if self._sandbox is None:
            self.open()
        assert self._sandbox is not None
        texts = rows.column(self.spec.code).to_pylist()
        tests = rows.column(self.spec.tests).to_pylist() if self.spec.tests else [""] * len(texts)
        jobs = [self._job(text, test) for text, test in zip(texts, tests)]
        finished = iter(self._sandbox.run([job for job in jobs if isinstance(job, tuple)], self.spec.limits))
        results = [next(finished) if isinstance(job, tuple) else job for job in jobs]
        verdicts = [result.verdict if isinstance(result, Outcome) else result for result in results]
        outcomes = [result if isinstance(result, Outcome) else None for result in results]
        names = [f.name for f in self.columns()]
        columns = (
            pa.array(verdicts, pa.string()),
            pa.array([(o.detail or "")[:MAX_DETAIL] or None if o else None for o in outcomes], pa.string()),
            pa.array([o.test if o else None for o in outcomes], pa.int32()),
            pa.array([o.exit if o else None for o in outcomes], pa.int32()),
        )
        reasons = pa.array([None if v == "passed" else v for v in verdicts], pa.string())
        return Findings(dict(zip(names, columns)), reasons)

    def _job(self, text: str | None, tests: str | None) -> tuple[str, str] | str:
        """(program, tests), or the verdict if there is nothing to run."""
        code = text or ""
        if self.spec.fenced and (block := FENCE.search(code)):
            code = block[1]
        if not code.strip():
            return "no_code"
        whole = "\n".join(part for part in (tests or "", self.spec.add) if part)
        if not whole.strip() and self.spec.need_tests:
            return "no_tests"
        return code, whole
