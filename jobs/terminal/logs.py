"""Where the log of a command goes: lines on stderr for people, or JSON lines for collectors.

All modules log to `logging.getLogger(__name__)`, below the logger "gristmill". `GRISTMILL_LOG=json` asks for JSON, one
object a line: t, level, logger, event ("log") and text. A program that imports the package and configures logging
itself keeps its own handlers.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime

from rich.console import Console

ROOT = "gristmill"


def is_json() -> bool:
    return os.environ.get("GRISTMILL_LOG") == "json"


class LineHandler(logging.Handler):
    """One line a record, on the stderr of the moment: a live display moves it above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if is_json():
                sys.stderr.write(_as_json(record) + "\n")
                sys.stderr.flush()
                return
            console = Console(file=sys.stderr, highlight=False)
            style = ("yellow" if record.levelno >= logging.WARNING else "dim") if console.is_terminal else None
            console.print(self.format(record), style=style, soft_wrap=True, markup=False)
        except (OSError, ValueError):  # the reader of stderr is gone; a log never ends a run
            pass


def _as_json(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line = {"t": time, "level": record.levelname.lower(), "logger": record.name, "event": "log"}
    return json.dumps({**line, "text": record.getMessage()}, ensure_ascii=False)


def set_up_logging() -> None:
    """Send the package's log to stderr from INFO on. Does nothing the second time."""
    root = logging.getLogger(ROOT)
    if not any(isinstance(handler, LineHandler) for handler in root.handlers):
        root.addHandler(LineHandler())
        root.setLevel(logging.INFO)
