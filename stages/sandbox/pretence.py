"""`os.chmod` and `os.utime` as programs have them: they change nothing, and fail for a file that they could not change.

The filter answers both calls with success, because copies and archives make them and need no more. It cannot see the
path, so a call for a file that does not exist would succeed too; `Path.touch` would then not create it. These
functions look first. They are no lock: a program that goes around them still changes nothing.
"""

import errno
import functools
import os
from collections.abc import Callable
from typing import Any

NAMES = ("chmod", "utime")


def pretend(scratch: str) -> None:
    """Replace both functions of `os`, for files in `scratch`."""
    root = os.path.realpath(scratch)
    for name in NAMES:
        real = getattr(os, name)
        looking = _looking(real, root)
        setattr(os, name, looking)
        for functions in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
            if real in functions:
                functions.add(looking)


def _looking(change: Callable[..., None], root: str) -> Callable[..., None]:
    @functools.wraps(change)
    def looking(path: Any, *arguments: Any, **options: Any) -> None:
        place, follows = options.get("dir_fd"), options.get("follow_symlinks", True)
        os.stat(path, dir_fd=place, follow_symlinks=follows)
        if not isinstance(path, int) and place is None:
            whole = os.path.realpath(path) if follows else os.path.abspath(os.fsdecode(path))
            if not os.fsdecode(whole).startswith(root + os.sep) and os.fsdecode(whole) != root:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        change(path, *arguments, **options)

    return looking
