"""Who wrote this, and does that process still live? For what a killed process leaves behind."""

import os
import socket


def process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, None when it is gone; tells a reused pid apart."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def knows_processes() -> bool:
    """Whether this system tells when a process began."""
    return os.path.isdir("/proc/self")


def this_process() -> str:
    """Host, pid and start of this process as one word for file names."""
    return f"{socket.gethostname()}-{os.getpid()}-{process_start(os.getpid()) or 0}"


def is_dead(signed: str) -> bool | None:
    """Whether the process that signed so is gone; None when it cannot be known (another host, no signature)."""
    host, _, rest = signed.rpartition("-")[0].rpartition("-")
    pid, start = rest, signed.rpartition("-")[2]
    if host != socket.gethostname() or not pid.isdigit() or not start.isdigit() or not knows_processes():
        return None
    return process_start(int(pid)) != start
