"""A mount namespace of its own for a jail, in which it mounts file systems of limited size.

A privileged process needs a mount namespace only. Others need a user namespace too, which some kernels and containers
refuse. A file system that is mounted in the namespace ends with the last process in it.
"""

import ctypes
import os

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 0x4000, 0x40000
MNT_DETACH = 2

libc = ctypes.CDLL(None, use_errno=True)


def enter(place: str) -> bool:
    """Move this process, which has one thread, to its own mount namespace. False: it may not, and stays where it is.

    `place` is a folder that a file system can be mounted on to try.
    """
    # A process that may enter a user namespace may still not mount in it, and cannot leave it: a child tries first.
    pid = os.fork()
    if not pid:
        code = 1
        try:
            _unshare()
            mount(place, 1 << 20, 16)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        return False
    _unshare()
    return True


def mount(place: str, num_bytes: int, num_files: int) -> None:
    """Mount an empty file system in memory on the folder `place`. Raises OSError."""
    options = f"size={num_bytes},nr_inodes={num_files},mode=700"
    _must(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", ctypes.c_ulong(MS_NOSUID | MS_NODEV), options.encode()))


def unmount(place: str) -> None:
    """Remove the file system from the folder `place`. Raises OSError."""
    _must(libc.umount2(os.fsencode(place), MNT_DETACH))


def _unshare() -> None:
    if libc.unshare(CLONE_NEWNS) < 0:
        uid, gid = os.getuid(), os.getgid()
        _must(libc.unshare(CLONE_NEWNS | CLONE_NEWUSER))
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _must(libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))  # no mount reaches the host


def _must(answer: int) -> None:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
