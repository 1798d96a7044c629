"""Counts and deletes what a program has left in a folder, however deep it is and whatever its names and modes.

Nothing here recurses, builds a path of what it finds or follows a link. A program may rename all of it during a count.
"""

import os
import secrets
import stat
from contextlib import suppress

FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BLOCK = 512  # bytes: the unit of st_blocks


def usage(folder: str, max_bytes: int, max_files: int, inodes: set[int]) -> tuple[int, int]:
    """Bytes on disk and number of files and folders under `folder`. It stops where either is above its maximum.

    Files whose inode is in `inodes` have no bytes; the inodes of the others are added.
    """
    num_bytes, num_files = 0, 0
    ends = [os.open(folder, os.O_RDONLY | FOLDER)]
    try:
        while ends:
            end = ends.pop()
            try:
                for name in os.listdir(end):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        info = os.lstat(name, dir_fd=end)
                        num_files += 1
                        num_bytes += 0 if info.st_ino in inodes else info.st_blocks * BLOCK
                        inodes.add(info.st_ino)
                        if num_bytes > max_bytes or num_files > max_files:
                            return num_bytes, num_files
                        if stat.S_ISDIR(info.st_mode):
                            ends.append(_open(name, end))
            finally:
                os.close(end)
    finally:
        for end in ends:
            os.close(end)
    return num_bytes, num_files


def delete(folder: str) -> None:
    """Delete a folder and all in it. Raises OSError, for example if a process still adds to it.

    A folder within a folder is moved to the top before it is emptied, so that no depth needs open folders or long
    paths.
    """
    top = _open(folder, None)
    try:
        token = secrets.token_hex(8)  # no name that a program has used
        number = 0
        while names := os.listdir(top):
            for name in names:
                if _unlink(name, top):
                    continue
                end = _open(name, top)
                try:
                    for inner in os.listdir(end):
                        if not _unlink(inner, end):
                            os.close(_open(inner, end))  # a folder must be writable to be moved
                            number += 1
                            os.rename(inner, f"{token}-{number}", src_dir_fd=end, dst_dir_fd=top)
                finally:
                    os.close(end)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)


def _unlink(name: str, end: int) -> bool:
    """Delete a file. False if it is a folder."""
    if stat.S_ISDIR(os.lstat(name, dir_fd=end).st_mode):
        return False
    os.unlink(name, dir_fd=end)
    return True


def _open(name: str, end: int | None) -> int:
    """A descriptor of the folder `name` in the folder `end`; its owner gets all rights to it first."""
    place = os.open(name, os.O_PATH | FOLDER, dir_fd=end)
    try:
        # By descriptor: the name may have become a link to something else.
        if os.fstat(place).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)
