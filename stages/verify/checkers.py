"""Checkers: whether an output is a right one, for problems with several right outputs.

Checkers of kind `floats` follow math.isclose, with the difference and the tolerance as exact decimals. A checker
program runs in the sandbox after the program under test has ended, so that program can reach neither it nor its answer.
"""

import decimal
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gristmill.records.errors import UserError
from gristmill.stages.sandbox.runner import Job, Limits, Sandbox

MAX_SHOWN = 80  # characters of a line in a detail
INTEGER = re.compile(r"[+-]?[0-9]++")
NUMBER = re.compile(
    r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:e[+-]?[0-9]{1,6})?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE
)
EXACT = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])
Compare = Callable[[str, str, str], str | None]  # (input, expected output, output) to what is wrong, None: nothing


class BadChecker(Exception):
    """A checker program that raises, exceeds a limit, or returns neither True nor False."""


@dataclass(frozen=True)
class CheckerSpec:
    """What makes an output right."""

    # "lines": each line equals the expected one, without white space at ends of lines and empty lines at the end;
    # "tokens": the words between white space do; "floats": so, and numbers lie within the tolerance;
    # "unordered_lines" and "unordered_tokens": the same ones in any order; "program": a function says so.
    kind: Literal["lines", "tokens", "floats", "unordered_lines", "unordered_tokens", "program"] = "lines"
    # A number may differ from the expected one by `abs_tol`, or by `rel_tol` of it, whichever is more. Whole numbers,
    # both without a point or exponent, must be equal.
    abs_tol: float = 1e-6
    rel_tol: float = 1e-6  # Share of the expected number.
    # Python that defines check(input, expected, output) of three texts, which returns True or False; for "program".
    code: str | None = None
    file: str | None = None  # File with this Python, a local path or s3://; instead of `code`.
    column: str | None = None  # Column with the Python of each row's problem; instead of `code`.

    def __post_init__(self) -> None:
        if self.abs_tol < 0 or self.rel_tol < 0:
            raise ValueError("abs_tol and rel_tol must not be negative")
        if self.kind != "floats" and (self.abs_tol, self.rel_tol) != (1e-6, 1e-6):
            raise ValueError("abs_tol and rel_tol are keys of kind = 'floats'")
        num_programs = sum(text is not None for text in (self.code, self.file, self.column))
        if num_programs != (self.kind == "program"):
            raise ValueError("kind = 'program' needs one of code, file and column, and other kinds none")
        if self.code is not None:
            check_code(self.code)

    def program(self) -> str | None:
        """The text of the checker program, if it is the same for all rows. Raises UserError."""
        if self.file is None:
            return self.code
        from gristmill.records.stores.opening import read_bytes

        try:
            text = read_bytes(self.file).decode()
            check_code(text)
        except ValueError as error:
            raise UserError(f"checker: {self.file}: {error}") from None
        return text


LINES = CheckerSpec()


def check_code(code: str) -> None:
    """Raise ValueError with one line if a checker program is not Python or binds no `check`."""
    try:
        names = compile(code, "checker.py", "exec").co_names
    except SyntaxError as error:
        raise ValueError(f"the checker is not Python: {error.msg} (line {error.lineno})") from None
    except (ValueError, RecursionError, MemoryError) as error:  # null characters; too deep a nesting
        raise ValueError(f"the checker is not Python: {error}") from None
    if "check" not in names:
        raise ValueError("the checker defines no function check(input, expected, output)")


def compare_of(spec: CheckerSpec) -> Compare:
    """What compares outputs, for all kinds but "program"."""
    if spec.kind == "lines":
        return lambda _, expected, output: difference(output, expected)
    if spec.kind == "unordered_lines":
        return lambda _, expected, output: _unordered("line", lines_of(output), lines_of(expected))
    if spec.kind == "unordered_tokens":
        return lambda _, expected, output: _unordered("token", output.split(), expected.split())
    if spec.kind == "tokens":
        return lambda _, expected, output: _ordered("token", output.split(), expected.split(), str.__eq__)
    tolerances = decimal.Decimal(repr(spec.abs_tol)), decimal.Decimal(repr(spec.rel_tol))

    def is_close(token: str, wanted: str) -> bool:
        return token == wanted or _is_close(token, wanted, *tolerances)

    return lambda _, expected, output: _ordered("token", output.split(), expected.split(), is_close)


def compare_by(program: str, sandbox: Sandbox, limits: Limits) -> Compare:
    """What compares outputs by a checker program. It raises BadChecker with the reason."""

    def compare(given: str, expected: str, output: str) -> str | None:
        statements = (
            f"_answer = check({given!r}, {expected!r}, {output!r})",
            "assert type(_answer) is bool, f'check returned {_answer!r:.60}, neither True nor False'",
            "assert _answer",
        )
        outcome = sandbox.one(Job(program, "\n".join(statements), shared=True), limits)
        if outcome.verdict == "failed" and outcome.test == 2:
            first = next(iter(lines_of(output)), "")
            return f"the checker refuses the output {_short(first)}"
        if outcome.verdict != "passed":
            words = (outcome.detail or outcome.verdict).replace("program.py", "checker.py")
            raise BadChecker(re.sub(r" at tests\.py:\d+$", "", words))
        return None

    return compare


def difference(output: str, expected: str) -> str | None:
    """The first line in which an output is not the expected one; None if there is none."""
    return _ordered("line", lines_of(output), lines_of(expected), str.__eq__)


def lines_of(text: str) -> list[str]:
    """The lines without white space at their ends, and without empty ones at the end."""
    return [line.rstrip() for line in text.rstrip().split("\n")] if text.strip() else []


def _ordered(unit: str, parts: list[str], wanted: list[str], is_equal: Callable[[str, str], bool]) -> str | None:
    for number, (part, want) in enumerate(zip(parts, wanted), 1):
        if not is_equal(part, want):
            return f"{unit} {number} is {_short(part)}, expected {_short(want)}"
    if len(parts) < len(wanted):
        return f"{unit} {len(parts) + 1} is missing, expected {_short(wanted[len(parts)])}"
    if len(parts) > len(wanted):
        return f"{unit} {len(wanted) + 1} is {_short(parts[len(wanted)])}, expected no more {unit}s"
    return None


def _unordered(unit: str, parts: list[str], wanted: list[str]) -> str | None:
    missing, surplus = Counter(wanted), Counter(parts)
    missing, surplus = missing - surplus, surplus - missing
    if surplus:
        return f"{unit} {_short(min(surplus))} is not expected" + (" so often" if min(surplus) in wanted else "")
    return f"{unit} {_short(min(missing))} is missing" if missing else None


def _is_close(token: str, wanted: str, abs_tol: decimal.Decimal, rel_tol: decimal.Decimal) -> bool:
    """Whether two tokens are numbers that are equal or, if one has a point or an exponent, within the tolerance."""
    if not (NUMBER.fullmatch(token) and NUMBER.fullmatch(wanted)):
        return False
    number, want = decimal.Decimal(token), decimal.Decimal(wanted)
    if number.is_nan() or want.is_nan():
        return number.is_nan() and want.is_nan()
    if number == want:  # -0.0 and 0 are equal, and infinities of one sign
        return True
    if number.is_infinite() or want.is_infinite() or (INTEGER.fullmatch(token) and INTEGER.fullmatch(wanted)):
        return False
    distance = EXACT.abs(EXACT.subtract(number, want))
    return distance <= max(abs_tol, EXACT.multiply(rel_tol, EXACT.abs(want)))


def _short(line: str) -> str:
    return repr(line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}...")
