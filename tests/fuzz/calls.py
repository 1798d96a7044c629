"""Calls of the command line that read files, and what each of them may answer."""

import contextlib
import io
import re
from pathlib import Path
from unittest import mock

from gristmill.jobs.cli import main

CODES = {0, 1, 2, 3}
BUG = re.compile(r"this is a bug of gristmill.*details: (\S+)")


def call(*words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command line in this process, as a user gets them."""
    out, err = io.StringIO(), io.StringIO()
    plain = mock.patch.dict("os.environ", {"GRISTMILL_DEBUG": ""})
    with plain, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def check(*words: str) -> int:
    """Call the command line and check that it answers as documented; returns the exit code.

    One line says why something cannot be done. Notes may come before it.
    """
    code, out, err = call(*words)
    if bug := BUG.search(err):
        path = Path(bug[1])
        details = path.read_text()
        path.unlink()
        raise AssertionError(details)
    assert code in CODES, (code, out, err)
    assert "Traceback" not in out + err, err
    lines = [line for line in err.splitlines() if line.startswith("gristmill: ")]
    assert len(lines) == (1 if code == 2 else 0), (code, err)
    assert code != 2 or err.splitlines()[-1] == lines[0], err
    assert all(len(line) < 2000 for line in err.splitlines()), err
    return code
