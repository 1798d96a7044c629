"""The folder that a program may write to, of limited size.

In a mount namespace it is a file system in memory, and the kernel refuses what exceeds its size. Elsewhere it is a
folder on disk, and its files, the deleted ones that the program holds open included, are counted as the program runs.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from gristmill.stages.sandbox import namespaces, trees

# A file system in memory takes a little more than the limit, so that a program beyond its limit is noticed.
SLACK_BYTES, SLACK_FILES = 1 << 20, 16


class Scratch:
    """The folder of one program after another in `folder`, which this creates and `close` deletes."""

    def __init__(self, folder: str, namespaces_allowed: bool) -> None:
        self._folder = folder
        self.path = os.path.join(folder, "scratch")
        os.mkdir(folder, 0o700)
        os.mkdir(self.path, 0o700)
        self.is_private = namespaces_allowed and namespaces.enter(self.path)
        self.is_open = False  # whether a program may have left files

    def open(self, request: dict[str, Any]) -> None:
        """Provide an empty folder with the limits of a request."""
        self._max_bytes, self._max_files = request["scratch_mb"] << 20, request["scratch_files"]
        if self.is_private:
            namespaces.mount(self.path, self._max_bytes + SLACK_BYTES, self._max_files + SLACK_FILES)
        else:
            os.makedirs(self.path, 0o700, exist_ok=True)
        self.is_open = True

    def is_beyond(self, pids: Iterable[int]) -> bool:
        """Whether the files exceed a limit. `pids` are the processes that may have open files."""
        if self.is_private:
            info = os.statvfs(self.path)
            num_bytes = (info.f_blocks - info.f_bfree) * info.f_frsize
            return num_bytes > self._max_bytes or info.f_files - info.f_ffree - 1 > self._max_files  # less the root
        inodes: set[int] = set()
        try:
            num_bytes, num_files = trees.usage(self.path, self._max_bytes, self._max_files, inodes)
        except OSError:  # more folders side by side than descriptors
            return True
        for pid in pids:
            num_bytes += _deleted_bytes(pid, self.path, inodes)
        return num_bytes > self._max_bytes or num_files > self._max_files

    def clear(self) -> None:
        """Delete what the program has left. Its process has ended."""
        if not self.is_open:
            return
        self.is_open = False
        if self.is_private:
            namespaces.unmount(self.path)
        else:
            trees.delete(self.path)

    def close(self) -> None:
        """Delete the folder."""
        self.clear()
        trees.delete(self._folder)


def _deleted_bytes(pid: int, folder: str, inodes: set[int]) -> int:
    """Bytes of the files in `folder` that a process keeps after their deletion: open ones, and mapped ones."""
    total = 0
    device = os.stat(folder).st_dev
    # Its threads have the same files, but a thread that has ended, which the first may have, shows none.
    for thread in _names(f"/proc/{pid}/task"):
        place = f"/proc/{pid}/task/{thread}"
        numbers = _names(f"{place}/fd")
        for number in numbers:
            with suppress(OSError):
                info = os.stat(f"{place}/fd/{number}")
                if stat.S_ISREG(info.st_mode) and info.st_dev == device and info.st_ino not in inodes:
                    inodes.add(info.st_ino)
                    total += info.st_blocks * trees.BLOCK
        with suppress(OSError), open(f"{place}/maps", "rb") as lines:
            maps = lines.read().splitlines()
            total += sum(_mapped_bytes(line, os.fsencode(folder), inodes) for line in maps)
            if maps:
                break
    return total


def _mapped_bytes(line: bytes, folder: bytes, inodes: set[int]) -> int:
    """Bytes of a mapping of a file in `folder`, from a line "start-end rights offset device inode path"."""
    fields = line.split(None, 5)
    if len(fields) < 6 or not fields[5].startswith(folder) or int(fields[4]) in inodes:
        return 0
    start, _, end = fields[0].partition(b"-")
    return int(end, 16) - int(start, 16)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # the process, or this thread of it, has ended
        return []
