"""Runs programs in jails: the host's side of the sandbox. A jail outlives its programs."""

import json
import os
import secrets
import select
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

from gristmill.records.errors import UserError
from gristmill.records.shipped import PACKAGE_ROOT
from gristmill.records.spec import later
from gristmill.stages.sandbox import wire
from gristmill.stages.sandbox.folders import Folder, delete
from gristmill.stages.sandbox.lock import LEAST_LANDLOCK, NEWEST_LANDLOCK, has_filters, landlock_version

T = TypeVar("T")
R = TypeVar("R")
Verdict = Literal[
    "passed", "failed", "error", "syntax", "timeout", "memory", "output", "files", "exited", "crashed", "unsandboxed"
]
SLACK_S = 10.0  # beyond a program's wall time; after that its jail is replaced
CLOSE_S = 5.0  # for a jail to delete its files; after that it is killed
START_S = 300.0  # for the imports of a jail; they take a second or two on an idle machine


@dataclass(frozen=True)
class Limits:
    """Limits of a program."""

    cpu_s: float = 5.0  # CPU seconds.
    wall_s: float = 10.0  # Wall-clock seconds.
    memory_mb: int = 512  # Address space in MiB, at least 64, because Python itself takes some of it.
    output_kb: int = 64  # Standard output and error together in KiB.
    file_mb: int = 16  # Size of a file in MiB.
    scratch_mb: int = 32  # Size of all files together in MiB.
    scratch_files: int = later(1000)  # Files and folders at a time.
    num_files: int = 64  # Open files at a time, at least 8.

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if value <= 0:
                raise ValueError(f"{name} must be above 0")
        if self.memory_mb < 64:
            raise ValueError("memory_mb must be at least 64: Python itself takes some of it")
        if self.num_files < 8:
            raise ValueError("num_files must be at least 8")


@dataclass(frozen=True)
class Warm:
    """What a jail prepares for its programs.

    `code` are statements that it runs once, unlocked, before the first program. `paths` are folders that these
    statements and the programs import from.
    """

    code: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """What a sandbox uses of the kernel, if the kernel has it. Tests use less."""

    landlock: int = NEWEST_LANDLOCK  # newest version of Landlock
    namespaces: bool = True  # whether jails mount file systems of their own


@dataclass(frozen=True)
class Job:
    """A program, and what it is run with.

    The tests run in another process; with `shared` they run in the program's own, which can then forge its verdict.
    With `stdin` there is no report of standard error, and the output is that of standard output alone.
    """

    program: str
    tests: str = ""
    stdin: str | None = None  # standard input; None: it is empty
    shared: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a program."""

    verdict: Verdict
    detail: str | None = None  # the exception and its line
    test: int | None = None  # number of the statement of the tests that failed, from 0
    at: str | None = None  # "program" or "tests"
    exit: int | None = None
    signal: int | None = None
    output: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0


def check(kernel: Kernel = Kernel()) -> None:
    """Raise UserError if programs cannot be locked in here: nothing runs without the locks."""
    try:
        version, is_filtering = min(kernel.landlock, landlock_version()), has_filters()
    except OSError as error:
        raise UserError(f"programs cannot be run here: {error}") from None
    if version < LEAST_LANDLOCK:
        raise UserError(
            f"programs cannot be run here: the sandbox needs Landlock {LEAST_LANDLOCK} or newer (Linux 5.13, "
            f"'landlock' in /sys/kernel/security/lsm), this kernel has {version or 'none'}, and nothing runs without it"
        )
    if not is_filtering:
        raise UserError(
            "programs cannot be run here: the sandbox needs seccomp filters (CONFIG_SECCOMP_FILTER), "
            "this kernel or container has none, and nothing runs without them"
        )


def readable() -> list[str]:
    """Paths that programs may read: the standard library, shared libraries, time zones."""
    paths = sysconfig.get_paths()
    library = Path(paths["stdlib"])
    python = [str(library), str(Path(paths["platstdlib"]) / "lib-dynload")]
    return [*python, "/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/urandom"]


class Jail:
    """A process that runs programs one at a time."""

    def __init__(self, folder: str, warm: Warm, kernel: Kernel = Kernel()) -> None:
        program = Path(__file__).with_name("jail.py")
        self._folder = os.path.join(folder, secrets.token_hex(4))
        paths = {"folder": self._folder, "readable": [*readable(), *warm.paths]}
        options = {**warm.__dict__, **kernel.__dict__, **paths, "host": os.getpid()}
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-s", str(program), json.dumps(options), str(PACKAGE_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=folder,
            text=True,
            start_new_session=True,
        )
        try:
            self.is_private = bool(self._answer(START_S)["is_private"])  # whether the kernel limits its files
        except BaseException:
            self.close()
            raise

    def run(self, program: str, tests: str, limits: Limits, stdin: str | None = None, shared: bool = False) -> Outcome:
        """Run a program.

        Raises OSError (TimeoutError included) or EOFError if the jail does not answer; it is unusable then.
        """
        request = {
            **limits.__dict__,
            "program": program,
            "stdin": stdin,
            "beside": bool(tests.strip()) and not shared,
        }
        assert self._process.stdin is not None
        try:
            for message in (request, tests):
                wire.send(self._process.stdin.fileno(), message)
        except wire.TooLarge as error:
            raise EOFError(str(error)) from None
        except wire.PeerEnded:
            raise EOFError("the jail has ended") from None
        return Outcome(**self._answer(limits.wall_s + SLACK_S))

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        poll = select.poll()  # unlike select.select, for descriptors above 1023 too
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            raise TimeoutError("the jail does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the jail has ended")
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise EOFError("the jail ended in the middle of its answer") from None
        return answer

    def close(self) -> None:
        """End the process and its program, and delete their files."""
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                with suppress(OSError):  # it may not have read all input
                    end.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        delete(self._folder)


class Sandbox:
    """`workers` jails side by side.

    A jail that dies with a program is replaced, and the program's verdict is "crashed".

    Raises RuntimeError if a jail does not start.
    """

    def __init__(self, workers: int = 1, warm: Warm = Warm(), kernel: Kernel = Kernel()) -> None:
        check(kernel)
        self._warm, self._kernel = warm, kernel
        self._folder = Folder()
        self._jails: SimpleQueue[Jail | None] = SimpleQueue()  # None: a lost jail, to be started again
        self.workers = workers
        try:
            for _ in range(workers):
                self._jails.put(self._start())
        except BaseException:
            self.close()
            raise

    def run(self, programs: Sequence[tuple[str, str]], limits: Limits, shared: bool = False) -> list[Outcome]:
        """The results of all (program, tests), in order. Raises UserError if a program could not be locked in."""
        jobs = [Job(program, tests, shared=shared) for program, tests in programs]
        return self.each(lambda job: self.one(job, limits), jobs)

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of a function for all items, in order, with `workers` calls at a time."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(function, items))

    def one(self, job: Job, limits: Limits) -> Outcome:
        """The result of a program. Raises UserError if it could not be locked in."""
        outcome = self._one(job, limits)
        if outcome.verdict == "unsandboxed":
            raise UserError(f"a program could not be locked in, so it did not run: {outcome.detail}")
        return outcome

    def _start(self) -> Jail:
        try:
            return Jail(self._folder.path, self._warm, self._kernel)
        except (OSError, EOFError) as error:
            raise RuntimeError(f"a process of the sandbox does not start (out of memory?): {error}") from error

    def _one(self, job: Job, limits: Limits) -> Outcome:
        jail = self._jails.get()
        try:
            jail = jail or self._start()
            try:
                return jail.run(job.program, job.tests, limits, job.stdin, job.shared)
            except (OSError, EOFError):
                jail.close()
                jail = None
                jail = self._start()
                return Outcome("crashed", "its jail was lost")
            except BaseException:
                jail.close()
                jail = None
                raise
        finally:
            self._jails.put(jail)  # in any case: the next program waits for it

    def close(self) -> None:
        while not self._jails.empty():
            jail = self._jails.get()
            if jail is not None:
                jail.close()
        self._folder.close()
