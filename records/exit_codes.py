"""Exit codes of the command line, and what a scheduler does after each. The only table of them: docs, the command line
and deploy/run.py use it.
"""

from dataclasses import dataclass
from typing import Literal

# "never": the same command ends the same way. "resume": somebody stopped it, and the same command goes on.
# "retry": something was lost, and the same command goes on where it stopped.
Retry = Literal["never", "resume", "retry"]


@dataclass(frozen=True)
class ExitCode:
    """One row of the table. `name` is what the row is called in a log line."""

    code: int
    name: str
    meaning: str
    retry: Retry


DONE, FINDING, CANNOT, SHORT, BUG, STOPPED = 0, 1, 2, 3, 70, 130

TABLE = (
    ExitCode(DONE, "done", "everything that was asked for is done", "never"),
    ExitCode(
        FINDING,
        "finding",
        "an audit found something wrong, a privacy claim is refuted, a law or a chain of a study, or a student, failed",
        "never",
    ),
    ExitCode(CANNOT, "cannot", "it cannot be done; one line says why", "never"),
    ExitCode(
        SHORT,
        "short",
        "`produce`, `flow`: the source, a budget, an alarm (`limits.template_share`) or a limit before an exact one "
        "ended it before a stated limit was reached; the last line names the limit",
        "never",
    ),
    ExitCode(BUG, "bug", "a bug of gristmill; the line names a file with the details", "retry"),
    ExitCode(
        STOPPED,
        "stopped",
        "stopped by Ctrl-C or SIGTERM; the same command resumes (`tune`: prints what it has measured)",
        "resume",
    ),
)
CODES = {row.code: row for row in TABLE}


def classify(code: int) -> ExitCode:
    """The row of an exit code; a code outside the table, or a negative signal number, is a loss, which is retried."""
    if code in CODES:
        return CODES[code]
    number = -code if code < 0 else code - 128
    cause = f"signal {number}" if 0 < number < 65 else f"code {code}"
    return ExitCode(code, "loss", f"the driver was lost ({cause})", "retry")
