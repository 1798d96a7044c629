"""Runs programs against their tests in the sandbox, and rejects those that do not pass.

The code is the text column, or the first fenced block in it. Tests are statements about what the program defines, from
a column of the row or from the recipe, or inputs and outputs of the whole program. Nothing runs without the sandbox.

A program never shares a process with what judges it: statements run in a process of their own and ask the program's
process for what they need. So a program cannot write its verdict, replace a function of the tests or read them. A row
without any tests passes on the program's own word that it ran to its end.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from gristmill.records.fences import first_block
from gristmill.records.spec import LATER, later
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.sandbox.runner import Job, Limits, Outcome, Sandbox, check
from gristmill.stages.verify.checkers import LINES, BadChecker, CheckerSpec, Compare, compare_by, compare_of
from gristmill.stages.verify.difficulty import check_bounds, fields_of, pass_rate, reason_of, refusal_of
from gristmill.stages.verify.stdio import BadTests, cases_of, run_cases

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
    # Column with inputs and their outputs as JSON: [{"input": "1 2", "output": "3"}, ...], or {"inputs": ["1 2", ...],
    # "outputs": ["3", ...]}.
    io: str | None = later(None)
    checker: CheckerSpec = field(default=LINES, metadata={LATER: True})  # What makes an output of `io` right.
    # Whether statements run in the program's own process, where a program can forge its verdict; for tests that do not
    # work from another process.
    shared: bool = later(False)

    # Column with several programs for a row's problem, a list of texts, instead of `code`: all are run, and the row
    # passes if one passes.
    samples: str | None = later(None)
    # Least share of `samples` that must pass; a row below it is rejected as too_hard. It keeps problems of some
    # difficulty.
    min_pass_rate: float = later(0.0)
    max_pass_rate: float = later(1.0)  # Largest share of `samples` that may pass; above it a row is too_easy.

    def __post_init__(self) -> None:
        if self.io is None and self.checker != LINES:
            raise ValueError("checker compares the outputs of io; name the column with inputs and outputs")
        if self.samples is not None and self.code != "text":
            raise ValueError("give either code or samples, not both")
        check_bounds(self.samples, self.min_pass_rate, self.max_pass_rate)


class Judgement(NamedTuple):
    """What is said of a program."""

    verdict: str
    detail: str | None = None
    test: int | None = None
    exit: int | None = None


class Execute(Stage):
    """Adds `execute_verdict`, `execute_detail`, `execute_test` and `execute_exit`.

    A row whose verdict is not passed is rejected for it. Verdicts: passed, failed, error, syntax, timeout, memory,
    output, files, exited, crashed, no_code, no_tests, bad_tests, bad_checker. The detail is the exception and its line,
    or what of the output is wrong; the test is the number of the statement, or of the input, that failed, from 0.

    With `samples` it also adds `execute_pass_rate` (the share of samples that pass), `execute_num_samples`, and
    `execute_sample`: the number of the first sample that passes, from 0, or 0 if none does; the other columns are about
    this one. A sample that is null does not pass. Further reasons: too_hard, too_easy.
    """

    kind: ClassVar[str] = "execute"
    revision: ClassVar[int] = 2  # tests run in a process of their own
    Spec: ClassVar[type] = ExecuteSpec
    spec: ExecuteSpec

    def __init__(self, spec: ExecuteSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._sandbox: Sandbox | None = None
        self._compare: Compare | None = None  # None: each row has a checker of its own

    def columns(self) -> list[pa.Field]:
        return [
            pa.field(f"{self.name}_verdict", pa.string()),
            pa.field(f"{self.name}_detail", pa.string()),
            pa.field(f"{self.name}_test", pa.int32()),
            pa.field(f"{self.name}_exit", pa.int32()),
            *([pa.field(f"{self.name}_sample", pa.int32())] if self.spec.samples else []),
            *fields_of(self.name, self.spec.samples),
        ]

    def reads(self) -> list[str]:
        columns = (self.spec.tests, self.spec.io, self.spec.checker.column)
        return [self.spec.samples or self.spec.code, *(column for column in columns if column)]

    def refuses(self, field: pa.Field) -> str | None:
        return refusal_of(field) if field.name == self.spec.samples else super().refuses(field)

    def identity(self) -> dict[str, Any]:
        program = self.spec.checker.program() if self.spec.checker.file else None
        return {**super().identity(), **({"checker": program} if program else {})}

    def check(self) -> None:
        check()
        self.spec.checker.program()

    def open(self) -> None:
        self._sandbox = Sandbox(self.spec.workers)
        spec = self.spec.checker
        if spec.kind != "program":
            self._compare = compare_of(spec)
        elif (program := spec.program()) is not None:
            self._compare = compare_by(program, self._sandbox, self.spec.limits)

    def close(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sandbox": None, "_compare": None}  # open() makes them

    def find(self, rows: pa.RecordBatch) -> Findings:
        if self._sandbox is None:
            self.open()
        assert self._sandbox is not None
        names = (self.spec.tests, self.spec.io, self.spec.checker.column)
        others = list(zip(*(rows.column(n).to_pylist() if n else [None] * rows.num_rows for n in names)))
        if self.spec.samples:
            samples = [row or [] for row in rows.column(self.spec.samples).to_pylist()]
        else:
            samples = [[program] for program in rows.column(self.spec.code).to_pylist()]
        # Equal programs of a row are run once.
        jobs = list(dict.fromkeys((number, program) for number, row in enumerate(samples) for program in row))
        judgements = self._sandbox.each(lambda job: self._judge(job[1], *others[job[0]]), jobs)
        by_job = dict(zip(jobs, judgements))
        return self._findings([[by_job[number, program] for program in row] for number, row in enumerate(samples)])

    def _findings(self, rows: list[list[Judgement]]) -> Findings:
        """The findings from what is said of all samples of each row."""
        passing = [[number for number, each in enumerate(row) if each.verdict == "passed"] for row in rows]
        firsts = [numbers[0] if numbers else 0 for numbers in passing]
        rates = [pass_rate([each.verdict == "passed" for each in row]) for row in rows]
        shown = [row[first] if row else Judgement("no_code") for first, row in zip(firsts, rows)]
        columns = [
            pa.array([each.verdict for each in shown], pa.string()),
            pa.array([(each.detail or "")[:MAX_DETAIL] or None for each in shown], pa.string()),
            pa.array([each.test for each in shown], pa.int32()),
            pa.array([each.exit for each in shown], pa.int32()),
            pa.array([first if row else None for first, row in zip(firsts, rows)], pa.int32()),
            pa.array(rates, pa.float32()),
            pa.array([len(row) for row in rows], pa.int32()),
        ]
        bounds = self.spec.min_pass_rate, self.spec.max_pass_rate
        reasons = [
            each.verdict if each.verdict != "passed" else reason_of(rate, *bounds) if self.spec.samples else None
            for each, rate in zip(shown, rates)
        ]
        return Findings(dict(zip([f.name for f in self.columns()], columns)), pa.array(reasons, pa.string()))

    def _judge(self, text: str | None, tests: str | None, cases: str | None, checker: str | None) -> Judgement:
        """What is said of a program."""
        assert self._sandbox is not None
        code = text or ""
        if self.spec.fenced and (block := first_block(code)) is not None:
            code = block.text
        if not code.strip():
            return Judgement("no_code")
        statements = "\n".join(part for part in (tests or "", self.spec.add) if part)
        try:
            inputs = cases_of(cases)
        except BadTests as error:
            return Judgement("bad_tests", str(error).encode("utf-8", "replace").decode())
        if not statements.strip() and not inputs and self.spec.need_tests:
            return Judgement("no_tests")
        outcome = Outcome("passed")
        if statements.strip() or not inputs:
            outcome = self._sandbox.one(Job(code, statements, shared=self.spec.shared), self.spec.limits)
        if outcome.verdict == "passed" and inputs:
            try:
                compare = self._compare or self._compare_by(checker)
                outcome = run_cases(self._sandbox, code, inputs, self.spec.limits, compare)
            except BadChecker as error:
                return Judgement("bad_checker", str(error).encode("utf-8", "replace").decode())
        return Judgement(outcome.verdict, outcome.detail, outcome.test, outcome.exit)

    def _compare_by(self, checker: str | None) -> Compare:
        """What compares outputs by the checker of a row. Raises BadChecker if there is none."""
        assert self._sandbox is not None
        if checker is None or not checker.strip():
            raise BadChecker("the row has no checker")
        return compare_by(checker, self._sandbox, self.spec.limits)
