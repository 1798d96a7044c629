"""The driver of a run, as a person runs it: one command, given again whenever it has ended before its work was done."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

AGAIN_AFTER_S = 1.0
MAX_IN_VAIN = 20  # starts in a row without a commit between them
# What a driver says when the data it finds there is not its own or not whole: no loss of ours may lead to that.
WRONG_DATA = ("was made by another recipe", "holds shards but no manifest", "its last lot holds fewer asks")


LOST_PUT = "another run has written it"
ELSEWHERE = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"


class WrongData(Exception):
    """A driver has refused the output that it wrote itself."""


class WrongEnd(Exception):
    """A driver that had to stop has not, or not with the one line that says why."""


@cache
def elsewhere() -> tuple[str, ...]:
    """The words before HOST COMMAND that run a command under another host name. Raises RuntimeError without the right
    to do so."""
    for unshare in (("unshare", "--uts"), ("unshare", "--user", "--map-root-user", "--uts")):
        words = (*unshare, sys.executable, "-c", ELSEWHERE)
        if subprocess.run([*words, "another-host", "true"], capture_output=True).returncode == 0:
            return words
    raise RuntimeError("the kind `pause` needs the right to change a process's host name (unshare --uts)")


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

    @property
    def lost_put(self) -> bool:
        """Whether it has ended because another driver had written the shard that it was about to put."""
        return self.code == 2 and LOST_PUT in self.last_line

    def check_line(self, reasons: Sequence[str]) -> None:
        """Raise WrongEnd unless it has ended of itself with one line, which holds one of the reasons."""
        text = self.log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.startswith("gristmill: ")]
        is_clear = self.code == 2 and len(lines) == 1 and any(reason in lines[0] for reason in reasons)
        if not is_clear or "Traceback" in text:
            raise WrongEnd(f"{self.end}; not exit 2 with one line that says {' or '.join(reasons)}; see {self.log}")


class Paused:
    """A driver that is stopped (SIGSTOP) and not the current one any more."""

    def __init__(self, popen: subprocess.Popen, start: Start) -> None:
        self._popen, self.start = popen, start
        popen.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> None:
        """Return when it has ended. Raises WrongEnd when it goes on for longer."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise WrongEnd(f"the paused driver goes on {timeout_s:.0f} s after it was woken") from None
        self.start.ended, self.start.code = time.monotonic(), self._popen.returncode

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


class Driver:
    """At most one process at a time, beside those that `pause` has stopped; `starts` tells its lives.

    The next start is on a machine of the name `host`; None: on this one.
    """

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.command = [sys.executable, "-m", "gristmill", *arguments]
        self.folder = folder
        self.starts: list[Start] = []
        self.env: dict[str, str] = {}
        self.host: str | None = None
        self._paused: list[Paused] = []
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
                [*elsewhere(), self.host, *self.command] if self.host else self.command,
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

    def pause(self) -> Paused:
        """Stop it (SIGSTOP); the next `go_on` starts another beside it."""
        assert self._popen
        self._paused.append(Paused(self._popen, self.starts[-1]))
        self._popen = None
        return self._paused[-1]

    def end(self) -> None:
        """SIGKILL of all that still run."""
        self.kill()
        for paused in self._paused:
            paused.kill()

    def kill(self) -> None:
        """SIGKILL; nothing when it has ended already."""
        if self.lives:
            assert self._popen
            self._popen.kill()
            self._popen.wait()
            self.starts[-1].was_killed = True
            self._note()
