"""Where the log of a command goes: lines on stderr for people, or JSON lines for collectors.

All modules log to `logging.getLogger(__name__)`, below the logger "gristmill". With `GRISTMILL_LOG=json` each record is
one JSON object a line: t, level, logger, event ("log") and text. Displays then show nothing, so that every line is
JSON. A program that imports the package and configures logging itself keeps its own handlers.
"""

import logging
import os
import sys
import textwrap
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType

from gristmill.records.log_filter import make_safe
from gristmill.records.masking.masks import masked_text
from gristmill.records.printable import json_text, printable, printable_line

ROOT = "gristmill"
DIM, YELLOW, RESET = "\x1b[2m", "\x1b[33m", "\x1b[0m"


def is_json() -> bool:
    """Whether the log is asked for as JSON lines."""
    return os.environ.get("GRISTMILL_LOG") == "json"


class LineHandler(logging.Handler):
    """Writes one line per record to `sys.stderr` as it is at that moment.

    A live display puts itself in the place of `sys.stderr` and prints the line above itself. A rich Console would write
    past it, into the display.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = _text_of(record)
            sys.stderr.write((_as_json(record, text) if is_json() else _as_line(record, text)) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # the reader of stderr is gone; a log never ends a run
            pass


def _text_of(record: logging.LogRecord) -> str:
    """The message as one line, without secrets and control characters; below it the traceback, if it has one."""
    text = printable_line(masked_text(record.getMessage()))
    if record.exc_info:
        text += "\n" + _indented(traceback.format_exception(*record.exc_info))
    return text


def _indented(lines: list[str]) -> str:
    """The lines of a traceback, two blanks to the right: none of them passes for a line of the log."""
    return textwrap.indent(printable(masked_text("".join(lines).rstrip())), "  ")


def _as_line(record: logging.LogRecord, text: str) -> str:
    if record.levelno >= logging.ERROR:
        text = f"{ROOT}: {text}"
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"{YELLOW if record.levelno >= logging.WARNING else DIM}{text}{RESET}"


def _as_json(record: logging.LogRecord, text: str) -> str:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line = {"t": time, "level": record.levelname.lower(), "logger": record.name, "event": "log"}
    return json_text({**line, "text": text})


def _print_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The traceback of a bug: its message may quote what a model wrote, or an address with keys."""
    sys.stderr.write(_indented(traceback.format_exception(kind, error, trace)) + "\n")


def set_up_logging() -> None:
    """Send the package's log to stderr from INFO on. A second call does nothing."""
    root = logging.getLogger(ROOT)
    if not any(isinstance(handler, LineHandler) for handler in root.handlers):
        root.addHandler(LineHandler())
        root.setLevel(logging.INFO)
        make_safe(logging.lastResort)  # it writes the warnings of libraries
        sys.excepthook = _print_crash
        threading.excepthook = lambda crash: _print_crash(
            crash.exc_type, crash.exc_value or crash.exc_type(), crash.exc_traceback
        )
