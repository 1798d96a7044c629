"""Folders of sandboxes in the temporary folder. Each is held by its process; those of ended processes are deleted."""

import fcntl
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from gristmill.records.processes import is_dead, this_process
from gristmill.stages.sandbox import trees

PREFIX = "gristmill-sandbox-"
PATIENCE_S = 10.0  # for the last processes of a killed jail to end


class Folder:
    """A folder of this process, locked as long as it is open."""

    def __init__(self) -> None:
        sweep()
        self.path = tempfile.mkdtemp(prefix=f"{PREFIX}{this_process()}-")
        self._end = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._end, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Delete the folder. It may be closed already."""
        if self._end >= 0:
            delete(self.path)
            os.close(self._end)
            self._end = -1


def delete(path: str) -> None:
    """Delete a folder whose processes have ended or are about to. Raises OSError if they still add to it."""
    end_time = time.monotonic() + PATIENCE_S
    while True:
        try:
            return trees.delete(path)
        except FileNotFoundError:
            if not os.path.lexists(path):
                return None  # a jail has deleted it
        except OSError:
            if time.monotonic() > end_time:
                raise
        time.sleep(0.01)


def sweep() -> None:
    """Delete the folders of processes of this user that have ended without doing so."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        signature = path.name.removeprefix(PREFIX).rpartition("-")[0]
        with suppress(OSError):  # of another user, or another process is sweeping it
            if is_dead(signature) and path.lstat().st_uid == os.geteuid() and not _is_held(path):
                trees.delete(str(path))


def _is_held(path: Path) -> bool:
    """Whether a process holds the folder, which may be one that this process cannot see, in another container."""
    end = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(end, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(end)
    return False
