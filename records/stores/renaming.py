"""Renaming that fails when the new name is taken."""

import ctypes
import errno
import os
from functools import cache
from pathlib import Path
from typing import Any

AT_FDCWD = -100
RENAME_NOREPLACE = 1
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # by the file system, such as NFS, or by the kernel


def rename_new(old: Path, new: Path) -> None:
    """Rename a file within its folder. Raises FileExistsError when the new name is taken.

    A hard link does the same, but the file has two names until the old one is removed. That moves its change time, so
    a reader that sees the file in between takes it for changed. It is used where there is no such renaming.
    """
    rename = _renameat2()
    if rename is not None:
        if rename(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in UNSUPPORTED:
            raise OSError(number, os.strerror(number), str(old), None, str(new))
    os.link(old, new)
    os.unlink(old)


@cache
def _renameat2() -> Any:
    """The function of the C library, None where it has none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function
