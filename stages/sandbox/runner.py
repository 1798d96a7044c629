"""Runs programs in jails: the host's side of the sandbox. A jail outlives its programs."""

import json
import select
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from gristmill.records.errors import UserError
from gristmill.records.shipped import PACKAGE_ROOT
from gristmill.stages.sandbox.lock import landlock_version

Verdict = Literal[
    "passed", "failed", "error", "syntax", "timeout", "memory", "output", "files", "exited", "crashed", "unsandboxed"
]
SLACK_S = 10.0  # beyond a program's wall time; after that its jail is replaced
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


def check() -> None:
    """Raise UserError if programs cannot be locked in here: nothing runs without the locks."""
    try:
        version = landlock_version()
    except OSError as error:
        raise UserError(f"programs cannot be run here: {error}") from None
    if not version:
        raise UserError(
            "programs cannot be run here: the sandbox needs Landlock (Linux 5.13 or newer, 'landlock' in "
            "/sys/kernel/security/lsm), and nothing runs without it"
        )


def readable() -> list[str]:
    """Paths that programs may read: the standard library, shared libraries, time zones."""
    paths = sysconfig.get_paths()
    library = Path(paths["stdlib"])
    python = [str(library), str(Path(paths["platstdlib"]) / "lib-dynload")]
    return [*python, "/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/urandom"]


class Jail:
    """A process that runs programs one at a time."""

    def __init__(self, folder: str, warm: Warm) -> None:
        program = Path(__file__).with_name("jail.py")
        self._folder = folder
        self._readable = [*readable(), *warm.paths]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-s", str(program), json.dumps(warm.__dict__), str(PACKAGE_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=folder,
            text=True,
            start_new_session=True,
        )
        try:
            self._answer(START_S)
        except BaseException:
            self.close()
            raise

    def run(self, program: str, tests: str, limits: Limits) -> Outcome:
        """Run a program.

        Raises OSError (TimeoutError included) or EOFError if the jail does not answer; it is unusable then.
        """
        request = {
            **limits.__dict__,
            "program": program,
            "tests": tests,
            "folder": self._folder,
            "readable": self._readable,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**self._answer(limits.wall_s + SLACK_S))

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
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
        self._process.kill()
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                with suppress(OSError):  # it may not have read all input
                    end.close()


class Sandbox:
    """`workers` jails side by side.

    A jail that dies with a program is replaced, and the program's verdict is "crashed".

    Raises RuntimeError if a jail does not start.
    """

    def __init__(self, workers: int = 1, warm: Warm = Warm()) -> None:
        check()
        self._warm = warm
        self._folder = tempfile.TemporaryDirectory(prefix="gristmill-sandbox-")
        self._jails: SimpleQueue[Jail | None] = SimpleQueue()  # None: a lost jail, to be started again
        self.workers = workers
        try:
            for _ in range(workers):
                self._jails.put(self._start())
        except BaseException:
            self.close()
            raise

    def run(self, programs: Sequence[tuple[str, str]], limits: Limits) -> list[Outcome]:
        """The results of all (program, tests), in order. Raises UserError if a program could not be locked in."""
        with ThreadPoolExecutor(self.workers) as pool:
            outcomes = list(pool.map(lambda each: self._one(each[0], each[1], limits), programs))
        for outcome in outcomes:
            if outcome.verdict == "unsandboxed":
                raise UserError(f"a program could not be locked in, so it did not run: {outcome.detail}")
        return outcomes

    def _start(self) -> Jail:
        try:
            return Jail(self._folder.name, self._warm)
        except (OSError, EOFError) as error:
            raise RuntimeError(f"a process of the sandbox does not start (out of memory?): {error}") from error

    def _one(self, program: str, tests: str, limits: Limits) -> Outcome:
        jail = self._jails.get()
        try:
            jail = jail or self._start()
            try:
                return jail.run(program, tests, limits)
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
        self._folder.cleanup()
