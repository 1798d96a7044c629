"""The command line. It parses first and imports a verb only to call it, so that --help is instant."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from gristmill.jobs.terminal.logs import set_up_logging
from gristmill.jobs.terminal.streams import steady_streams
from gristmill.jobs.verbs import parser
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import CANNOT, STOPPED

DEBUG = "GRISTMILL_DEBUG"  # set: an unexpected exception leaves `main` with its traceback

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code, one of gristmill.records.exit_codes."""
    words = list(sys.argv[1:] if argv is None else argv)
    flags = vars(parser().parse_args(words))
    set_up_logging()
    del flags["verb"]
    module, _, function = flags.pop("run").partition(":")
    with steady_streams() as out:
        code = _call(module, function, flags, words)
        out.flush()
        if out.is_incomplete:
            logger.error(f"the output cannot be written: {out.failure}")
            return code or CANNOT
    return code


def _call(module: str, function: str, flags: dict[str, Any], words: Sequence[str]) -> int:
    try:
        run = getattr(importlib.import_module(f"gristmill.jobs.{module}"), function)
        return int(run(**flags))
    except UserError as error:
        logger.error(_one_line(error))
        return CANNOT
    except OSError as error:  # of the machine, not of the program: a disk that fails, no more open files
        what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error
        logger.error(_one_line(f"{type(error).__name__}: {what}"))
        return CANNOT
    except KeyboardInterrupt:
        logger.error("stopped; run the same command again to resume")
        return STOPPED
    except Exception as error:
        from gristmill.jobs.terminal.bugs import report_bug  # imports much

        if os.environ.get(DEBUG):
            raise
        return report_bug(error, words)


def _one_line(error: object) -> str:
    """The message on one line: it may quote a file or another program."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
