"""Runs programs against their tests in the sandbox, and rejects those that do not pass.

Code comes from the text column as it is, or from its first fenced block; tests from a column of the row, or the recipe.
Nothing is run where the sandbox cannot lock it in. The verdict is of one honest program: code that means to deceive its
tests can, as in every benchmark that runs tests beside code; it cannot get out.
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
    """`code` is the column with the program, `tests` that with its tests (statements, asserts as a rule)."""

    code: str = "text"
    tests: str | None = None
    add: str = ""  # statements after the tests of each row, e.g. "check(candidate)"
    fenced: bool = True  # where the text has a fenced block, the program is the first one
    limits: Limits = field(default_factory=Limits)
    workers: int = 1  # programs at a time, in each worker of the run
    need_tests: bool = True  # a row without tests is rejected; else it passes when its program runs to its end


class Execute(Stage):
    """Findings: `execute_verdict` (passed, failed, error, syntax, timeout, memory, output, files, exited, crashed,
    no_code, no_tests), `execute_detail` (the exception and its line), `execute_test` (number of the statement of the
    tests that failed, from 0) and `execute_exit`. A row that did not pass is rejected for its verdict."""

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
        ran = iter(self._sandbox.run([job for job in jobs if isinstance(job, tuple)], self.spec.limits))
        found = [next(ran) if isinstance(job, tuple) else job for job in jobs]
        verdicts = [o.verdict if isinstance(o, Outcome) else o for o in found]
        outcomes = [o if isinstance(o, Outcome) else None for o in found]
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
        """(program, tests), or the verdict where there is nothing to run."""
        code = text or ""
        if self.spec.fenced and (block := FENCE.search(code)):
            code = block[1]
        if not code.strip():
            return "no_code"
        whole = "\n".join(part for part in (tests or "", self.spec.add) if part)
        if not whole.strip() and self.spec.need_tests:
            return "no_tests"
        return code, whole
