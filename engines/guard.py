"""Ends an engine's processes when the process that started them is gone, however it died.

vLLM runs its engine core and workers as children, and a SIGKILL of the parent can leave them behind, holding the
device. `Guard` marks every process that is started from now on with a variable of its environment and starts a watcher
(this file, run as a script) that outlives the parent: when the parent is gone, the watcher kills what bears the mark.
"""

import os
import secrets
import signal
import subprocess
import sys
import time

MARK = "GRISTMILL_ENGINE"
POLL_S = 0.5
SWEEP_S = 20.0


class Guard:
    """Watches from its making until `stop`, which ends what is left of the engine. One at a time in a process."""

    def __init__(self) -> None:
        self._mark = mark = secrets.token_hex(8)
        env = {name: value for name, value in os.environ.items() if name != MARK}
        os.environ[MARK] = mark
        self._watcher = subprocess.Popen(
            [sys.executable, "-S", "-E", os.path.abspath(__file__), mark, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,  # whoever kills our process group must not kill the watcher
        )

    def stop(self) -> None:
        """Kill the marked processes that are still there; returns when they are gone."""
        self._watcher.kill()
        self._watcher.wait()
        sweep(self._mark)
        os.environ.pop(MARK, None)


def marked(mark: str) -> list[int]:
    """Processes started with the mark in their environment; zombies have none."""
    sought = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if sought in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


def sweep(mark: str) -> None:
    """Kill all that bear the mark, also those that one of them starts meanwhile."""
    end = time.monotonic() + SWEEP_S
    while (pids := marked(mark)) and time.monotonic() < end:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(POLL_S / 10)


def main(mark: str, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    sweep(mark)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
