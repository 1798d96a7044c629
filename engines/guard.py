"""Ends the processes of an engine when the process that started them is gone, however it died.

vLLM runs its engine core and workers as child processes. A SIGKILL of the parent can leave them behind, holding the
device. `Guard` sets a mark in the environment, which all later child processes inherit, and starts a watcher (this
file, run as a script). The watcher outlives the parent and then kills all processes with the mark.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time

MARK = "GRISTMILL_ENGINE"
POLL_S = 0.05
SWEEP_S = 20.0
STOP = b"stop"


class Guard:
    """Active from its construction until `stop`, which ends the rest of the engine. One at a time in a process."""

    def __init__(self) -> None:
        self._mark = mark = secrets.token_hex(8)
        env = {name: value for name, value in os.environ.items() if name != MARK}
        os.environ[MARK] = mark
        starter = subprocess.Popen(
            [sys.executable, "-S", "-E", os.path.abspath(__file__), mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,  # a signal to our process group must not reach the watcher
        )
        starter.wait()
        assert starter.stdin is not None
        self._pipe = starter.stdin

    def stop(self) -> None:
        """Kill the remaining marked processes; returns when they are gone."""
        with contextlib.suppress(BrokenPipeError), self._pipe:
            self._pipe.write(STOP)
        sweep(self._mark)
        os.environ.pop(MARK, None)


def marked(mark: str) -> list[int]:
    """Pids of the processes with the mark in their environment; zombies have no environment."""
    entry = f"{MARK}={mark}".encode()
    pids = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if entry in file.read().split(b"\0"):
                    pids.append(int(name))
        except OSError:
            continue  # ended meanwhile, or of another user
    return pids


def sweep(mark: str) -> None:
    """Kill all processes with the mark, also those that they start meanwhile."""
    end = time.monotonic() + SWEEP_S
    while (pids := marked(mark)) and time.monotonic() < end:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(POLL_S)


def main(mark: str) -> None:
    """Go on as an orphan, since a Ray worker that ends kills its children; sweep when the pipe to the parent ends."""
    if os.fork():
        return
    if sys.stdin.buffer.read() != STOP:
        sweep(mark)


if __name__ == "__main__":
    main(sys.argv[1])
