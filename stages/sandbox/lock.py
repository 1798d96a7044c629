"""Locks the calling process. A lock cannot be removed.

Three locks, none of which needs root or a container: resource limits; Landlock (Linux 5.13), which restricts the file
system to a scratch folder and the standard library; and a seccomp filter, which restricts the process to the system
calls of syscalls.py in the forms of seccomp.py. Capabilities are dropped first, so that root has no privileges.

Landlock alone covers more in later versions: truncating from 3 on, devices from 5 on, signals from 6 on. The filter
covers these on all, so the locks hold from version 1 on. Version 1 refuses more: files do not move between folders.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence

from gristmill.stages.sandbox.seccomp import ENOSYS, KILL, Filter
from gristmill.stages.sandbox.syscalls import OTHERS, machine

LEAST_LANDLOCK, NEWEST_LANDLOCK = 1, 7  # the least version that the locks hold on, and the newest that is of use
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 1, 38, 4
SECCOMP_SET_MODE_FILTER, SECCOMP_GET_ACTION_AVAIL = 1, 2
LANDLOCK_RULE_PATH, LANDLOCK_VERSION = 1, 1
READ_FILE, READ_DIR, WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
# Rights that a program has not even in its scratch folder: to execute, and to make devices, sockets and named pipes.
NOWHERE = 1 << 0 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11
NO_CORE = 1  # bytes of a core file: 0 would still start a handler of core dumps, and this is too little for any

libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """The Landlock version of the kernel; 0: none."""
    call = OTHERS[machine()]["landlock_create_ruleset"]
    version = libc.syscall(ctypes.c_long(call), None, ctypes.c_size_t(0), ctypes.c_uint32(LANDLOCK_VERSION))
    return max(0, int(version))


def has_filters() -> bool:
    """Whether the kernel has seccomp filters, with the action that ends a process."""
    call, action = OTHERS[machine()]["seccomp"], ctypes.c_uint32(KILL)
    arguments = (ctypes.c_uint(SECCOMP_GET_ACTION_AVAIL), ctypes.c_uint(0), ctypes.byref(action))
    return bool(libc.syscall(ctypes.c_long(call), *arguments) == 0)


def limit(cpu_s: float, memory_mb: int, file_mb: int, num_files: int) -> None:
    """Set resource limits, soft and hard. A process beyond its CPU time gets SIGXCPU and, a second later, SIGKILL."""
    core = min(NO_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1] % 2**64)  # -1 is no limit
    for resource_kind, most in (
        (resource.RLIMIT_CPU, max(1, int(cpu_s + 0.999))),
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, file_mb << 20),
        (resource.RLIMIT_NOFILE, num_files),
        (resource.RLIMIT_CORE, core),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        hard = most + 1 if resource_kind == resource.RLIMIT_CPU else most
        resource.setrlimit(resource_kind, (most, hard))


def drop(is_visible: bool) -> None:
    """Give up capabilities, and all ways to new ones; forks inherit this. Raises OSError.

    `is_visible`: whether processes of the same user outside may see the open files of this process in /proc.
    """
    _drop_capabilities()
    _must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _must(libc.prctl(PR_SET_DUMPABLE, int(is_visible), 0, 0, 0), "dumpable")


def lock(ruleset: int, seccomp: Filter, parent: int) -> None:
    """Put on all locks after `drop`. Raises OSError if a lock fails: the caller must not continue then.

    The process ends with its parent, the process `parent`. `ruleset` is a descriptor of `Rules.of`.
    """
    end_with(parent)
    _call("landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint32(0))
    _call("seccomp", ctypes.c_uint(SECCOMP_SET_MODE_FILTER), ctypes.c_uint(0), seccomp.of(os.getpid()))


def end_with(parent: int) -> None:
    """Let the calling process be killed when the process `parent`, its own, ends."""
    _must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent's death")
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def _must(answer: int, resource_kind: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{resource_kind}: {os.strerror(number)}")
    return answer


def _call(name: str, *arguments: object) -> int:
    return _must(libc.syscall(ctypes.c_long(OTHERS[machine()][name]), *arguments), name)


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _call("capset", ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))


class Rules:
    """The Landlock rules of all programs of a jail: all rights to their folder but NOWHERE's, and reading `readable`.

    `version` is the newest version of Landlock to use. Raises OSError.
    """

    def __init__(self, readable: Sequence[str], version: int) -> None:
        self._version = version = min(version, landlock_version())
        self._files = files = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
        net = 3 if version >= 4 else 0  # bind and connect of TCP; seccomp allows no sockets anyway
        scope = 3 if version >= 6 else 0  # abstract sockets and signals
        self._size = 8 if version < 4 else 16 if version < 6 else 24
        self._attributes = ctypes.c_char_p(struct.pack("=QQQ", files, net, scope)[: self._size])
        self._rules = [self._rule("/dev/null", READ_FILE | WRITE_FILE)]
        for path in readable:
            with contextlib.suppress(FileNotFoundError):
                self._rules.append(self._rule(path, READ_FILE | READ_DIR))

    def of(self, scratch: str) -> int:
        """A descriptor of the rules for a program whose folder is `scratch`. Raises OSError."""
        if self._version < LEAST_LANDLOCK:
            least, own = LEAST_LANDLOCK, self._version or "none"
            raise OSError(ENOSYS, f"Landlock {least} is needed, and this kernel has {own}")
        size = ctypes.c_size_t(self._size)
        ruleset = _call("landlock_create_ruleset", self._attributes, size, ctypes.c_uint32(0))
        own_rule = self._rule(scratch, self._files & ~NOWHERE)
        kind, none = ctypes.c_int(LANDLOCK_RULE_PATH), ctypes.c_uint32(0)
        for rule in (own_rule, *self._rules):
            _call("landlock_add_rule", ctypes.c_int(ruleset), kind, ctypes.c_char_p(rule), none)
        os.close(struct.unpack("=Qi", own_rule)[1])
        return ruleset

    def _rule(self, path: str, rights: int) -> bytes:
        """A rule about a path, which it holds open."""
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= READ_FILE | WRITE_FILE
        return struct.pack("=Qi", rights & self._files, place)
