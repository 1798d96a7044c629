"""The template of a jail: the process that the processes of programs and tests are forked from.

It never holds a text of a program or of tests: it passes on the descriptors that they are read from. It drops what
all its forks must not have, and makes what all of them need, so that a fork copies few pages of memory. Its forks are
children of the jail, which waits for them (CLONE_PARENT).

`os.fork` would run the hooks of the standard library, for threads and random numbers, which write to many pages. A
template has a single thread, and a program's random numbers have a seed.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from gristmill.stages.sandbox import report as details
from gristmill.stages.sandbox.judge import judge
from gristmill.stages.sandbox.lock import drop, end_with, limit, lock
from gristmill.stages.sandbox.pretence import pretend
from gristmill.stages.sandbox.program import run_alone, run_for_tests
from gristmill.stages.sandbox.scratch import Scratch
from gristmill.stages.sandbox.seccomp import Filter
from gristmill.stages.sandbox.syscalls import OTHERS, machine

REPORT = 3  # descriptor for the verdict of the harness
LOCK_MARK = b"locked\n"  # written before the program's first line; the program itself may write what follows
PROGRAM_GONE = 71  # exit code of the process of tests: the process of the program has ended
ALONE, SERVING, TESTS = range(3)  # a program without others; one that serves its tests; the tests
NUM_FILES = {ALONE: 4, SERVING: 6, TESTS: 6}  # descriptors that a process keeps, 0 to 3 or 5
SOCKET = 8  # descriptor of the template's socket; those below are the ones that forks replace
ORDER = struct.Struct("=6q")  # role, whether it has standard input, and the limits
CLONE_PARENT, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID = 0x00008000, 0x01000000, 0x00200000
PR_GET_TID_ADDRESS, MFD_NOEXEC_SEAL = 40, 8
F_ADD_SEALS, F_SEALS = 1033, 1 | 2 | 4 | 8  # SEAL, SHRINK, GROW, WRITE

libc = ctypes.PyDLL(None, use_errno=True)  # keeps Python's lock during a call


def file_of(text: str, errors: str = "surrogatepass") -> int:
    """A descriptor to read a text from, in memory. Nobody can change it."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        end = os.memfd_create("text", flags | MFD_NOEXEC_SEAL)  # some systems refuse any other
    except OSError:  # before Linux 6.3
        end = os.memfd_create("text", flags)
    data = memoryview(text.encode("utf-8", errors))
    while data:
        data = data[os.write(end, data) :]
    os.lseek(end, 0, os.SEEK_SET)
    fcntl.fcntl(end, F_ADD_SEALS, F_SEALS)
    return end


class Template:
    """The jail's end. Raises OSError if the template does not start."""

    def __init__(self, scratch: Scratch) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        jail_pid = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            code = 1
            try:
                _serve(other, scratch, jail_pid)
                code = 0
            finally:
                os._exit(code)
        other.close()
        if self._socket.recv(1) != b"r":
            raise OSError("the template of a jail does not start")

    def fork(self, role: int, request: dict[str, Any], ends: Sequence[int]) -> int:
        """The id of a new process. `ends` become its descriptors from 0; then come the rules and the texts.

        Raises RuntimeError if there is none: the template has ended, or the machine has no room for a process.
        """
        size_mb = min(request["file_mb"], request["scratch_mb"])
        numbers = (max(1, int(request["cpu_s"] + 0.999)), request["memory_mb"], size_mb, request["num_files"])
        order = ORDER.pack(role, request["stdin"] is not None, *numbers)
        try:
            socket.send_fds(self._socket, [order], list(ends))
            pid = int.from_bytes(self._socket.recv(8), "little")
        except OSError as error:
            raise RuntimeError("the template of the jail has ended") from error
        if not pid:
            raise RuntimeError("the template of the jail has ended, or cannot fork")
        return pid


def _serve(end: socket.socket, scratch: Scratch, jail_pid: int) -> None:
    """Fork a process for each order until the jail ends."""
    os.dup2(end.fileno(), SOCKET)
    os.closerange(SOCKET + 1, 4096)
    end = socket.socket(fileno=SOCKET)
    _prepare(scratch)
    end_with(jail_pid)  # after the change of capabilities, because some changes reset it
    fork, seccomp = _Fork(), Filter()
    end.send(b"r")
    while True:
        order, ends, _, _ = socket.recv_fds(end, ORDER.size, 16)
        if not order:
            return
        pid = fork()
        if not pid:
            _become(order, ends, scratch.path, jail_pid, seccomp)
        for each in ends:
            os.close(each)
        end.send(max(0, pid).to_bytes(8, "little"))


def _prepare(scratch: Scratch) -> None:
    """Do once what all forks have in common."""
    null = os.open("/dev/null", os.O_RDWR)
    pipe, pipe_end = os.pipe()  # the streams below must see pipes, as the output of a fork is
    for target in range(SOCKET):
        os.dup2(pipe_end if target in (1, 2) else null, target)
    os.environ.clear()
    os.environ.update({"HOME": scratch.path, "TMPDIR": scratch.path, "PATH": "", "LANG": "C.UTF-8"})
    tempfile.tempdir = scratch.path
    os.umask(0o077)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open as long as a program runs
    sys.stdout = open(1, "w", buffering=8192, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    for each in (null, pipe, pipe_end):
        if each > SOCKET:
            os.close(each)
    pretend(scratch.path)
    details.hide(scratch.path)
    random.seed(0)
    drop(not scratch.is_private)


class _Fork:
    """Forks this process, which has one thread, as a child of its parent."""

    def __init__(self) -> None:
        place = ctypes.c_void_p()  # where libc keeps the id of this thread, for the kernel to write that of the fork
        flags = CLONE_PARENT | signal.SIGCHLD
        if libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(place), 0, 0, 0) == 0:  # some kernels are built without it
            flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
        null = ctypes.c_void_p()
        # The last two arguments change places between machines, and only one of them is used.
        number = ctypes.c_long(OTHERS[machine()]["clone"])
        self._arguments = (number, ctypes.c_ulong(flags), null, null, place, place)

    def __call__(self) -> int:
        """The id of the fork, 0 in the fork, and below 0 if there is none."""
        return int(libc.syscall(*self._arguments))


def _become(order: bytes, ends: Sequence[int], folder: str, jail_pid: int, seccomp: Filter) -> NoReturn:
    """Turn the fork into a locked process with its own descriptors and limits, and do its work."""
    code = 70
    try:
        role, has_stdin, cpu_s, memory_mb, file_mb, num_files = ORDER.unpack(order)
        os.setsid()
        num_files_kept = NUM_FILES[role]
        for target in range(num_files_kept):
            os.dup2(ends[target], target)
        texts = [_text(end) for end in ends[num_files_kept + 1 :]]
        os.chdir(folder)
        if has_stdin:
            sys.stdin = open(0, closefd=False)  # noqa: SIM115
        limit(cpu_s, memory_mb, file_mb, num_files)
        lock(ends[num_files_kept], seccomp, jail_pid)
        os.closerange(num_files_kept, 4096)
        os.write(REPORT, LOCK_MARK)
        threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
        code = _work(role, texts)
    except BaseException as error:  # noqa: BLE001 - the host gets the error, and nothing runs
        with contextlib.suppress(BaseException):
            os.write(REPORT, repr(error).encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _work(role: int, texts: list[str]) -> int:
    """The exit code of the process."""
    if role == ALONE:
        program, tests = texts
        run_alone(program, tests, REPORT)
        return 0
    (text,) = texts
    if role == SERVING:
        run_for_tests(text, REPORT + 1, REPORT + 2)
        return 0
    findings = judge(text, REPORT + 1, REPORT + 2)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    if findings["verdict"] == "gone":
        return PROGRAM_GONE
    os.write(REPORT, json.dumps(findings).encode())
    return 0


def _text(end: int) -> str:
    data = os.pread(end, os.fstat(end).st_size, 0)
    return data.decode("utf-8", "surrogatepass")
