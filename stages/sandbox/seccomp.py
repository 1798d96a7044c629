"""The seccomp filter of a program: which system calls it may make, and in which form.

A filter sees numbers, not what pointers refer to. A call that takes a path is allowed only if Landlock governs it in
every version; the others are refused, or answered without being made (`PRETENDED` of syscalls.py).
"""

import ctypes
import struct
from collections.abc import Sequence

from gristmill.stages.sandbox.syscalls import ALLOWED_CALLS, MACHINES, OTHERS, PRETENDED, UNSUPPORTED, machine

KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
EPERM, ENOSYS, EOPNOTSUPP = 1, 38, 95
X32 = 0x40000000  # the other numbering of calls that x86_64 kernels accept

PR_SET_NAME, PR_GET_NAME = 15, 16
IOCTLS = (0x5401, 0x5451, 0x5450, 0x5421, 0x541B, 0x5413)  # TCGETS, FIOCLEX, FIONCLEX, FIONBIO, FIONREAD, TIOCGWINSZ
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_OFD_GETLK, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Among the others
# are those that have the kernel send signals to any process (F_SETOWN, F_SETSIG) and those that make others wait
# (F_SETLEASE).
FCNTLS = (0, 1, 2, 3, 4, 5, 36, 1030, 1032)
FCNTL_LOCKS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW: a read lock holds for files of others too
# NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP,
# GUARD_INSTALL, GUARD_REMOVE. Among the others are those that move pages of shared files out of memory.
ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 102, 103)
# A thread shares memory, folder, descriptors and signals with its process: descriptors of its own would not count
# towards the limit of open files.
THREAD_FLAGS = 0x00000100 | 0x00000200 | 0x00000400 | 0x00000800 | 0x00010000
# SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID, DETACHED, CHILD_SETTID, and the signal at its end
THREAD_OPTIONS = 0x00040000 | 0x00080000 | 0x00100000 | 0x00200000 | 0x00400000 | 0x01000000 | 0xFF
O_ACCMODE, O_TRUNC, O_PATH = 0o3, 0o1000, 0o10000000  # the same on both machines
MAP_HUGETLB = 0x40000
CLOSE_RANGE_UNSHARE = 2
ANY_PID = 0x7FEDCBA9  # no process has this id
RENAME_FLAGS = 1 | 2  # NOREPLACE, EXCHANGE; WHITEOUT makes a device

Line = tuple[int, int, int, int]
# The filter is a program in classic BPF: (code, jump if true, jump if false, value).
LOAD, EQUAL, ANY_BIT, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06
NUMBER, ARCH = 0, 4
REFUSE: Line = (RETURN, 0, 0, ERRNO | EPERM)
ACCEPT: Line = (RETURN, 0, 0, ALLOW)
PRETEND: Line = (RETURN, 0, 0, ERRNO | 0)  # the call is not made, and its answer is 0


def argument(index: int, high: bool = False) -> Line:
    """Loads the low (or high) half of an argument."""
    return (LOAD, 0, 0, 16 + 8 * index + (4 if high else 0))


def filter_of(own_pid: int) -> bytes:
    """The filter for the process `own_pid`, as the kernel takes it: 8 bytes an instruction."""
    return b"".join(struct.pack("=HBBI", *line) for line in instructions(own_pid))


class Filter:
    """The filter in memory, which a process makes its own by writing its id into it."""

    def __init__(self) -> None:
        code, own = filter_of(ANY_PID), struct.pack("=I", ANY_PID)
        self._code = ctypes.create_string_buffer(code, len(code))
        self._places = [at for at in range(4, len(code), 8) if code[at : at + 4] == own]
        self._whole = ctypes.c_char_p(struct.pack("@HP", len(code) // 8, ctypes.addressof(self._code)))

    def of(self, own_pid: int) -> ctypes.c_char_p:
        """The argument of seccomp() for the process `own_pid`."""
        for at in self._places:
            struct.pack_into("=I", self._code, at, own_pid)
        return self._whole


def instructions(own_pid: int) -> list[Line]:
    """The instructions of the filter for a process."""
    name = machine()
    program: list[Line] = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, MACHINES[name]), (RETURN, 0, 0, KILL)]
    program.append((LOAD, 0, 0, NUMBER))
    if name == "x86_64":
        program += [(AT_LEAST, 0, 1, X32), REFUSE]

    def when(number: int, *body: Line) -> None:
        program.extend([(EQUAL, 0, len(body), number), *body])

    for call, body in _forms(own_pid).items():
        if call in OTHERS[name]:
            when(OTHERS[name][call], *body)
    for number in PRETENDED[name].values():
        when(number, PRETEND)
    for number in UNSUPPORTED[name].values():
        when(number, (RETURN, 0, 0, ERRNO | EOPNOTSUPP))
    for number in ALLOWED_CALLS[name].values():
        when(number, ACCEPT)
    return [*program, REFUSE]


def _forms(own_pid: int) -> dict[str, list[Line]]:
    """For each call that depends on its arguments, what decides it."""
    # Access mode 3 asks for neither reading nor writing, so no version of Landlock governs it; O_TRUNC beside
    # O_RDONLY empties a file that may only be read (Landlock below 3); a descriptor of O_PATH may be of any file.
    flags = [(ANY_BIT, 4, 0, O_PATH), (AND, 0, 0, O_ACCMODE | O_TRUNC), (EQUAL, 2, 0, O_TRUNC)]
    flags += [(AND, 0, 0, O_ACCMODE), (EQUAL, 0, 1, O_ACCMODE), REFUSE, ACCEPT]
    return {
        # A filter cannot read the flags of clone3, which lie in memory; libc falls back to clone.
        "clone3": [(RETURN, 0, 0, ERRNO | ENOSYS)],
        "clone": [
            argument(0),
            (AND, 0, 0, 0xFFFFFFFF ^ THREAD_OPTIONS),
            (EQUAL, 0, 1, THREAD_FLAGS),
            ACCEPT,
            REFUSE,
        ],
        "kill": _one_of(0, [own_pid]),
        "tgkill": _one_of(0, [own_pid]),
        "prctl": _one_of(0, [PR_SET_NAME, PR_GET_NAME]),
        "ioctl": _one_of(1, IOCTLS),
        "fcntl": _one_of(1, FCNTLS, FCNTL_LOCKS),
        "madvise": _one_of(2, ADVICE),
        "mmap": [argument(3), (ANY_BIT, 0, 1, MAP_HUGETLB), REFUSE, ACCEPT],  # huge pages are a store of all processes
        "close_range": [argument(2), (ANY_BIT, 0, 1, CLOSE_RANGE_UNSHARE), REFUSE, ACCEPT],
        "renameat2": [argument(4), (ANY_BIT, 0, 1, 0xFFFFFFFF ^ RENAME_FLAGS), REFUSE, ACCEPT],
        "open": [argument(1), *flags],
        "openat": [argument(2), *flags],
        # prlimit64 may only read its own limits: its third argument must be null.
        "prlimit64": [
            *(argument(0), (EQUAL, 1, 0, 0), (EQUAL, 0, 4, own_pid)),
            *(argument(2), (EQUAL, 0, 2, 0), argument(2, True), (EQUAL, 1, 0, 0)),
            *(REFUSE, ACCEPT),
        ],
    }


def _one_of(index: int, accepted: Sequence[int], pretended: Sequence[int] = ()) -> list[Line]:
    """Accepts the call if an argument has one of these values, pretends for others, and else refuses it."""
    num = len(accepted) + len(pretended)
    accepts: list[Line] = [(EQUAL, num - i, 0, value) for i, value in enumerate(accepted)]
    pretends: list[Line] = [(EQUAL, num - i + 1, 0, value) for i, value in enumerate(pretended, len(accepted))]
    return [argument(index), *accepts, *pretends, REFUSE, ACCEPT, PRETEND]
