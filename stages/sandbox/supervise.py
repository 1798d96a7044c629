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
    """The process that sends the programs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the counts of trees.py need some

    def wait(self) -> None:
        """Wait for its next program, and read nothing of it. Raises HostGone if the host ends."""
        while not select.select([0], [], [], 1.0)[0]:
            self.check()

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


def watch(
    pids: tuple[int, ...], output: int, report: int, scratch: Scratch, host: Host, request: dict[str, Any],
    start_time: float,
) -> Ending:  # fmt: skip
    """Read what processes write until the first of `pids` ends, or they exceed a limit and all are killed.

    Their wall time began at `start_time`. Raises HostGone; they are killed then. Only the first is reaped.
    """
    pid = pids[0]
    count_time = time.monotonic() + POLL_S
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
                    verdict = _beyond(pids, scratch, request["cpu_s"])
                    taken_s = time.monotonic() - now
                    count_time = now + max(POLL_S, taken_s / COUNT_SHARE)
                if verdict is not None:
                    for each in pids:
                        kill(each)
    finally:
        if not exit_pid:
            kill(pid)
            os.waitpid(pid, 0)
    if verdict is None and scratch.is_beyond(()):
        verdict = "files"
    cpu_s = usage.ru_utime + usage.ru_stime
    return Ending(verdict, status, text, report_bytes, cpu_s, time.monotonic() - start_time)


def kill(pid: int) -> None:
    """Kill a process, and the session that it leads. It is not reaped."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def end_of(pid: int, patience_s: float = 0.0) -> tuple[int, float]:
    """(status, CPU seconds) of a process, which is killed if it does not end in time; (0, 0.0) if it was reaped."""
    end_time = time.monotonic() + patience_s
    try:
        while True:
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                return status, usage.ru_utime + usage.ru_stime
            if time.monotonic() >= end_time:
                break
            time.sleep(FIRST_WAIT_S)
        kill(pid)
        _, status, usage = os.wait4(pid, 0)
    except ChildProcessError:
        return 0, 0.0
    return status, usage.ru_utime + usage.ru_stime


def _beyond(pids: tuple[int, ...], scratch: Scratch, cpu_s: float) -> str | None:
    """The limit on files, threads or CPU time that running processes exceed together, as a verdict."""
    if scratch.is_beyond(pids):
        return "files"
    num_threads, taken_s = 0, 0.0
    for pid in pids:
        with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
            num_threads += int(file.read().rpartition(b")")[2].split()[17])
        with suppress(OSError):
            taken_s += time.clock_gettime(~pid << 3 | 2)  # the clock of the process
    if len(pids) > 1 and taken_s > max(1, int(cpu_s + 0.999)):  # as lock.limit rounds it
        return "timeout"
    return "memory" if num_threads > MAX_THREADS else None
