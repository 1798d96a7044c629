"""The children of a killed engine's process die too, also when they ignore everything but SIGKILL."""

import os
import signal
import subprocess
import sys
import time

from gristmill.engines.guard import marked
from tests.conftest import ROOT

CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = f"""
import os, subprocess, sys, time
from gristmill.engines.guard import MARK, Guard
guard = Guard()
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(os.environ[MARK], flush=True)
sys.stdin.readline()
guard.stop()
print("stopped", flush=True)
time.sleep(600)
"""


def start() -> tuple[subprocess.Popen, str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    mark = parent.stdout.readline().strip()
    assert len(marked(mark)) == 1
    return parent, mark


def gone(mark: str) -> bool:
    end = time.monotonic() + 30
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.1)
    return not marked(mark)


def test_a_sigkill_of_the_parent_ends_the_children() -> None:
    parent, mark = start()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert gone(mark)


def test_stop_ends_the_children_and_not_the_parent() -> None:
    parent, mark = start()
    assert parent.stdin and parent.stdout
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "stopped\n"
    assert not marked(mark) and parent.poll() is None
    parent.kill()
    parent.wait()
