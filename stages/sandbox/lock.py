"""Locks the calling process. A lock cannot be removed.

Three locks, none of which needs root or a container: resource limits; Landlock (Linux 5.13), which restricts the file
system to a scratch folder and the standard library; and a seccomp filter, which restricts the process to the system
calls of syscalls.py. Capabilities are dropped first, so that root has no privileges.
"""

import ctypes
import os
import resource
import struct
from collections.abc import Sequence

from gristmill.stages.sandbox.syscalls import ALLOWED_CALLS, MACHINES, OTHERS, machine

PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE, PR_SET_NAME, PR_GET_NAME = 38, 4, 15, 16
SECCOMP_SET_MODE_FILTER = 1
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x00010000
IOCTLS = (0x5401, 0x5451, 0x5450, 0x5421, 0x541B, 0x5413)  # TCGETS, FIOCLEX, FIONCLEX, FIONBIO, FIONREAD, TIOCGWINSZ
LANDLOCK_RULE_PATH, LANDLOCK_VERSION = 1, 1
READ_FILE, READ_DIR, WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
X32 = 0x40000000  # the other numbering of calls that x86_64 kernels accept

libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """The Landlock version of the kernel; 0: none."""
    call = OTHERS[machine()]["landlock_create_ruleset"]
    version = libc.syscall(ctypes.c_long(call), None, ctypes.c_size_t(0), ctypes.c_uint32(LANDLOCK_VERSION))
    return max(0, int(version))


def limit(cpu_s: float, memory_mb: int, file_mb: int, num_files: int) -> None:
    """Set resource limits, soft and hard. A process beyond its CPU time gets SIGXCPU and, a second later, SIGKILL."""
    for resource_kind, most in (
        (resource.RLIMIT_CPU, max(1, int(cpu_s + 0.999))),
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, file_mb << 20),
        (resource.RLIMIT_NOFILE, num_files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        hard = most + 1 if resource_kind == resource.RLIMIT_CPU else most
        resource.setrlimit(resource_kind, (most, hard))


def lock(scratch: str, readable: Sequence[str]) -> None:
    """Drop capabilities and put on all locks. Raises OSError if a lock fails: the caller must not continue then."""
    _drop_capabilities()
    _must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _must(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    _landlock(scratch, readable)
    _seccomp()


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


def _landlock(scratch: str, readable: Sequence[str]) -> None:
    version = landlock_version()
    if not version:
        raise OSError(ENOSYS, "this kernel has no Landlock")
    files = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    net = 3 if version >= 4 else 0  # bind and connect of TCP; seccomp allows no sockets anyway
    scope = 3 if version >= 6 else 0  # abstract sockets and signals
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("=QQQ", files, net, scope)[:size]
    ruleset = _call("landlock_create_ruleset", ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    read = READ_FILE | READ_DIR
    for path, rights in ((scratch, files), ("/dev/null", READ_FILE | WRITE_FILE), *((p, read) for p in readable)):
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            rights &= READ_FILE | WRITE_FILE
        rule = struct.pack("=Qi", rights & files, place)
        _call(
            "landlock_add_rule", ctypes.c_int(ruleset), ctypes.c_int(LANDLOCK_RULE_PATH), ctypes.c_char_p(rule),
            ctypes.c_uint32(0),
        )  # fmt: skip
        os.close(place)
    _call("landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


# The filter is a program in classic BPF: (code, jump if true, jump if false, value).
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
NUMBER, ARCH = 0, 4


def argument(index: int, high: bool = False) -> int:
    """Offset of the low (or high) half of an argument in the data of a call."""
    return 16 + 8 * index + (4 if high else 0)


def filter_of(own_pid: int) -> list[tuple[int, int, int, int]]:
    """The instructions of the filter."""
    name = machine()
    calls = OTHERS[name]
    program = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, MACHINES[name]), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    if name == "x86_64":
        program += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, ERRNO | EPERM)]

    def when(call: str, *body: tuple[int, int, int, int]) -> None:
        program.append((EQUAL, 0, len(body), calls[call]))
        program.extend(body)

    refuse, allow = (RETURN, 0, 0, ERRNO | EPERM), (RETURN, 0, 0, ALLOW)
    when(
        "clone3", (RETURN, 0, 0, ERRNO | ENOSYS)
    )  # a filter cannot read its flags, which lie in memory; libc falls back to clone
    when("clone", (LOAD, 0, 0, argument(0)), (ANY_BIT, 0, 1, CLONE_THREAD), allow, refuse)
    for call in ("kill", "tgkill"):
        when(call, (LOAD, 0, 0, argument(0)), (EQUAL, 0, 1, own_pid), allow, refuse)
    when("prctl", (LOAD, 0, 0, argument(0)), (EQUAL, 1, 0, PR_SET_NAME), (EQUAL, 0, 1, PR_GET_NAME), allow, refuse)
    when(
        "ioctl",
        (LOAD, 0, 0, argument(1)),
        *((EQUAL, len(IOCTLS) - i, 0, v) for i, v in enumerate(IOCTLS)),
        refuse,
        allow,
    )
    # prlimit64 may only read limits: its third argument must be null.
    when(
        "prlimit64", (LOAD, 0, 0, argument(2)), (EQUAL, 0, 3, 0), (LOAD, 0, 0, argument(2, True)), (EQUAL, 0, 1, 0),
        allow, refuse,
    )  # fmt: skip
    program += [
        (EQUAL, 0, 1, number) if i % 2 == 0 else allow for number in ALLOWED_CALLS[name].values() for i in range(2)
    ]
    return [*program, refuse]


def _seccomp() -> None:
    program = b"".join(struct.pack("=HBBI", *line) for line in filter_of(os.getpid()))
    held = ctypes.create_string_buffer(program, len(program))
    whole = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    _call("seccomp", ctypes.c_uint(SECCOMP_SET_MODE_FILTER), ctypes.c_uint(0), ctypes.c_char_p(whole))
