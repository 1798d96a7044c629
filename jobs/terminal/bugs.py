"""The last line of defence: an exception that no part of the program expects is a bug, and is shown as one."""

import logging
import os
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gristmill.engines.models import cache_folder
from gristmill.records.exit_codes import BUG
from gristmill.records.masking.masks import masked_text
from gristmill.records.output.manifest import versions

logger = logging.getLogger(__name__)

MAX_CHARS = 300


def report_bug(error: BaseException, argv: Sequence[str]) -> int:
    """Write the traceback to a file of its own and log one line that names it; returns the exit code."""
    lines = str(error).strip().splitlines()
    what = masked_text(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:MAX_CHARS]
    path = _write(error, argv)
    where = f"details: {path}" if path else "GRISTMILL_DEBUG=1 shows the details"
    logger.error(f"this is a bug of gristmill ({what}); please report it; {where}")
    return BUG


def _write(error: BaseException, argv: Sequence[str]) -> Path | None:
    """The new file, readable by this user only; None where none can be written."""
    now = datetime.now(UTC)
    text = "".join(traceback.format_exception(error))
    words = shlex.join(["gristmill", *argv])
    content = masked_text(f"{now.isoformat(timespec='seconds')}\n{words}\n{versions()}\n\n{text}")
    for folder in (cache_folder() / "bugs", Path(tempfile.gettempdir())):
        path = folder / f"gristmill-{now:%Y%m%dT%H%M%S}-{os.getpid()}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", errors="backslashreplace") as file:
                file.write(content)
        except OSError:
            continue
        return path
    return None
