"""A driver is stopped between its two puts, another takes the output over, and the first wakes up."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import outputs
from tests.conftest import ROOT, gristmill
from tests.faults import wait_until
from tests.outputs import PATIENCE_S, kept_hashes
from tests.recipes import AT_ONCE, canned

LOTS = {"num_asks": 160}
STOP_AT = 2  # lot
# A driver that stops itself (SIGSTOP) just before it puts a shard of a lot, on a machine of this name.
DRIVER = """
import signal, socket, sys, threading
from gristmill.cluster.lots import commit
from gristmill.jobs.cli import main
from gristmill.records.output import lease
place, host, lot, arguments = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
socket.gethostname = lambda: host
lease.DEAD_S = 2.0
put = getattr(commit, place)
def paused(store, encoded, *rest):
    if encoded.lot == lot:
        # A signal to the process can reach another thread, and this one would put its shard before all are stopped.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    put(store, encoded, *rest)
setattr(commit, place, paused)
sys.exit(main(arguments))
"""


def start(place: str, host: str, recipe: str, out: str) -> subprocess.Popen:
    command = [sys.executable, "-c", DRIVER, place, host, str(STOP_AT), "produce", recipe, "--out", out, *AT_ONCE]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_stop(driver: subprocess.Popen) -> None:
    process = psutil.Process(driver.pid)
    wait_until("a stop", lambda: process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE), PATIENCE_S)
    assert process.status() == psutil.STATUS_STOPPED, driver.communicate()[0]


def kill(driver: subprocess.Popen) -> None:
    for process in psutil.Process(driver.pid).children(recursive=True):
        process.kill()
    driver.kill()
    driver.wait()


# By day, tests/records/output/test_drivers.py visits every order.
@pytest.mark.nightly
@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_driver_that_wakes_up_loses_no_row(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = str(tmp_path / "out") if where == "local" else f"{request.getfixturevalue('s3')}/pause-{tmp_path.name}"
    recipe = canned(tmp_path, **LOTS)
    first = start("put_kept", "one", recipe, out)
    wait_for_stop(first)  # its rejected shard is there, its kept shard is not
    second = start("put_rejected", "two", recipe, out)
    try:
        wait_for_stop(second)  # it has taken the output over and settled it
        first.send_signal(signal.SIGCONT)
        output, _ = first.communicate(timeout=PATIENCE_S)
        assert first.returncode == 2, output
        assert "has been taken over by another driver (process" in output and "on two); this one stops" in output
        assert "Traceback" not in output
    finally:
        kill(second)
    assert json.loads(gristmill("audit", out, "--json").stdout)["wrong"] == []
    done = gristmill("produce", recipe, "--out", out, *AT_ONCE)
    assert done.returncode == 0, done.stderr
    assert kept_hashes(out) == kept_hashes(outputs.undisturbed(**LOTS))
    assert gristmill("audit", out).returncode == 0
