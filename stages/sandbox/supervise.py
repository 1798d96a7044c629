"""Watches a locked process from outside until it ends, and ends it if it exceeds a limit or if the host is gone."""

import os
import resource
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gristmill.stages.sandbox.scratch import Scratch

POLL_S, FIRST_WAIT_S = 0.02, 0.0001
COUNT_SHARE = 0.2  # most of the time that is spent on counting files
MAX_REPORT = 65536
MAX_THREADS = 256  # of a program: threads take memory that its address space does not show, and numbers of processes


class HostGone(Exception):
    """The host has ended, or wants no more programs."""


class Host:
    """The process that sends the programs, and its lines on standard input."""

    def __init__(self, pid: int) -> None:
        self._pid, self._text = pid, b""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the counts of trees.py need some

    def line(self) -> bytes:
        """The next line. Raises HostGone if there is none."""
        while b"\n" not in self._text:
            self.check()
            if select.select([0], [], [], 1.0)[0]:
                data = os.read(0, 1 << 20)
                if not data:
                    raise HostGone
                self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return line

    def check(self) -> None:
        """Raise HostGone if the host has ended. Its end closes the input too, unless another process holds it open."""
        if os.getppid() != self._pid:
            raise HostGone


@dataclass
class Ending:
    """How a process has ended."""

    verdict: str | None  # the limit that it exceeded, for which it was killed
    status: int  # as `wait` returns it
    output: bytes
    report: bytes
    cpu_s: float
    wall_s: float


def watch(pid: int, output: int, report: int, scratch: Scratch, host: Host, request: dict[str, Any]) -> Ending:
    """Read what a process writes until it ends or exceeds a limit and is killed. Raises HostGone; it is killed then."""
    start_time = time.monotonic()
    count_time = start_time + POLL_S
    text, report_bytes, verdict = b"", b"", None
    ends, exit_pid, status, wait_s = {output, report}, 0, 0, FIRST_WAIT_S
    try:
        while True:
            if not exit_pid:
                exit_pid, status, usage = os.wait4(pid, os.WNOHANG)
            if not ends:  # most processes end right after they close both
                wait_s = min(POLL_S, 2 * wait_s)
            ready = select.select([*ends, 0], [], [], 0 if exit_pid else POLL_S if ends else wait_s)[0]
            for end in ready:
                if end == 0:
                    raise HostGone  # it sends nothing before it has an answer, so this is the end of its input
                data = os.read(end, 65536)
                if not data:
                    ends.discard(end)
                elif end == output:
                    text += data[: request["output_kb"] * 1024 + 1 - len(text)]
                else:
                    report_bytes += data[: MAX_REPORT - len(report_bytes)]
            if exit_pid and not ready:
                break
            if verdict is None and not exit_pid:
                now = time.monotonic()
                if len(text) > request["output_kb"] * 1024:
                    verdict = "output"
                elif now - start_time > request["wall_s"]:
                    verdict = "timeout"
                elif now >= count_time:
                    host.check()
                    verdict = _beyond(pid, scratch)
                    taken_s = time.monotonic() - now
                    count_time = now + max(POLL_S, taken_s / COUNT_SHARE)
                if verdict is not None:
                    kill(pid)
    finally:
        if not exit_pid:
            kill(pid)
            os.waitpid(pid, 0)
    if verdict is None and scratch.is_beyond(None):
        verdict = "files"
    cpu_s = usage.ru_utime + usage.ru_stime
    return Ending(verdict, status, text, report_bytes, cpu_s, time.monotonic() - start_time)


def kill(pid: int) -> None:
    """Kill a process, and the session that it leads. It is not reaped."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _beyond(pid: int, scratch: Scratch) -> str | None:
    """The limit on files or threads that a running process exceeds, as a verdict."""
    if scratch.is_beyond(pid):
        return "files"
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        if int(file.read().rpartition(b")")[2].split()[17]) > MAX_THREADS:
            return "memory"
    return None
