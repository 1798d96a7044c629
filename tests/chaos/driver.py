"""The driver of a run, as a person runs it: one command, given again whenever it has ended before its work was done."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

AGAIN_AFTER_S = 1.0
MAX_IN_VAIN = 20  # starts in a row without a commit between them
# What a driver says when the data it finds there is not its own or not whole: no loss of ours may lead to that.
WRONG_DATA = ("was made by another recipe", "holds shards but no manifest", "its last lot holds fewer asks")


class WrongData(Exception):
    """A driver has refused the output that it wrote itself."""


@dataclass
class Start:
    """One life of the driver; times are monotonic seconds."""

    at: float
    log: Path
    ended: float | None = None
    code: int | None = None
    was_killed: bool = False  # by us

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""

    @property
    def end(self) -> str:
        """How it ended of itself, in words: the exit code and its last words."""
        return f"exit {self.code}: {self.last_line}"


class Driver:
    """At most one process at a time; `starts` tells its lives."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.command = [sys.executable, "-m", "gristmill", *arguments]
        self.folder = folder
        self.starts: list[Start] = []
        self.env: dict[str, str] = {}
        self._popen: subprocess.Popen | None = None
        self._num_in_vain = 0
        self._num_committed = 0

    @property
    def is_done(self) -> bool:
        return bool(self.starts) and self.starts[-1].code == 0

    @property
    def lives(self) -> bool:
        self._note()
        return self._popen is not None

    def go_on(self, num_committed: int) -> None:
        """Start it, if it does not run, a second after its end. Raises WrongData, or RuntimeError for one that ends
        again and again without a commit."""
        if self.lives or self.is_done:
            return
        if self.starts:
            last = self.starts[-1]
            if not last.was_killed and any(words in last.end for words in WRONG_DATA):
                raise WrongData(last.end)
            if last.ended and time.monotonic() - last.ended < AGAIN_AFTER_S:
                return
            self._num_in_vain = 0 if num_committed > self._num_committed else self._num_in_vain + 1
            if self._num_in_vain > MAX_IN_VAIN:
                raise RuntimeError(f"the driver ended {self._num_in_vain} times without a commit; last, {last.end}")
        self._num_committed = num_committed
        log = self.folder / f"driver-{len(self.starts) + 1}.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with open(log, "wb") as file:
            self._popen = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**env, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.starts.append(Start(time.monotonic(), log))

    def _note(self) -> None:
        if self._popen is not None and self._popen.poll() is not None:
            self.starts[-1].ended, self.starts[-1].code = time.monotonic(), self._popen.returncode
            self._popen = None

    def kill(self) -> None:
        """SIGKILL; nothing when it has ended already."""
        if self.lives:
            assert self._popen
            self._popen.kill()
            self._popen.wait()
            self.starts[-1].was_killed = True
            self._note()
