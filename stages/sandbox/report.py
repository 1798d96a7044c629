"""What is reported of a program: a verdict, where it was reached, and the exception with its line."""

import contextlib
import errno
import re
import traceback
from typing import Any

PROGRAM, TESTS = "program.py", "tests.py"
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # addresses differ between processes
MAX_DETAIL = 400
PLACE = "_gristmill_place"  # attribute of an exception: where the other side raised it
_hidden = [""]  # the scratch folder of this process: its name differs between runs


def hide(path: str) -> None:
    """Show a path as "~" in all details of this process."""
    _hidden[0] = path


def line_of(error: BaseException) -> str:
    """The exception, and its place in the program or the tests."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in (PROGRAM, TESTS)]
    return detail(error, f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None)


def detail(error: BaseException, at: str | None, text: str | None = None) -> str:
    """The exception, or a text in its place, and where it was raised."""
    if text is None:
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception as other:  # noqa: BLE001 - it is the program's
            text = f"{type(error).__name__}: <{type(other).__name__} in str()>"
    text = ADDRESS.sub("0x", text.replace(_hidden[0], "~") if _hidden[0] else text)
    return text[:MAX_DETAIL] + (f" at {at}" if at else "")


def report_of(error: BaseException, at: str, line: str) -> dict[str, Any]:
    """The report of an exception of the program or, `at` "tests", of a statement of the tests."""
    if isinstance(error, SyntaxError):
        return {"verdict": "syntax", "detail": f"{error.msg} (line {error.lineno})"}
    if isinstance(error, MemoryError):
        return {"verdict": "memory"}
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return {"verdict": "files"}
    if isinstance(error, SystemExit):
        return {"verdict": "exited", "detail": repr(error.code)}
    if isinstance(error, AssertionError) and at == "tests":
        return {"verdict": "failed", "detail": line}
    return {"verdict": "error", "detail": line}


def place(error: BaseException, own: str) -> str | None:
    """Where an exception was raised: as the other side says, else the last line of the file `own` on its way."""
    trace, last = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == own:
            last = f"{own}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place_mark(error) or last


def place_mark(error: BaseException) -> str | None:
    try:
        mark = object.__getattribute__(error, PLACE)
    except AttributeError:
        return None
    return mark if isinstance(mark, str) else None


def mark_place(error: BaseException, at: str | None) -> None:
    with contextlib.suppress(Exception):  # a class without attributes
        object.__setattr__(error, PLACE, at)


def forget_frames(error: BaseException | None, at: str | None) -> None:
    """Remove what an exception holds of frames, which hold variables."""
    if error is not None and at is not None:
        mark_place(error, at)
    for _ in range(100):
        if error is None:
            return
        error.__traceback__ = None
        context, error.__context__ = error.__context__, None
        error = context
