"""Signatures of processes, to recognise leftovers of killed ones; last steps of a process that ends at once."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, None when it is gone. It distinguishes a reused pid."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def has_process_table() -> bool:
    """Whether this system provides the start time of processes."""
    return os.path.isdir("/proc/self")


def this_process() -> str:
    """Host, pid and start time of this process, for file names."""
    return f"{socket.gethostname()}-{os.getpid()}-{process_start(os.getpid()) or 0}"


def is_dead(signature: str) -> bool | None:
    """Whether the process of a signature is gone; None when it is unknown (another host, no signature)."""
    process, _, start = signature.rpartition("-")
    host, _, pid = process.rpartition("-")
    if host != socket.gethostname() or not pid.isdigit() or not start.isdigit() or not has_process_table():
        return None
    return process_start(int(pid)) != start


_last_steps: list[Callable[[], None]] = []


@contextmanager
def last_step(step: Callable[[], None]) -> Iterator[None]:
    """If the process ends without unwinding during the block, `run_last_steps` calls `step` first."""
    _last_steps.append(step)
    try:
        yield
    finally:
        _last_steps.remove(step)


def run_last_steps() -> None:
    """Call the steps of the open `last_step` blocks, the innermost first. For a process that ends without unwinding."""
    while _last_steps:
        _last_steps.pop()()
