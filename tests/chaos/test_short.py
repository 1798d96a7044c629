"""The kill tests in the short form of every test run, and in the long form of `make chaos`."""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT


def chaos(*arguments: str, timeout: float) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.mark.timeout(2000)
def test_nodes_the_head_and_the_store_go_and_come_back(tmp_path: Path) -> None:
    """What cluster/lots/test_crashes.py does not kill. With this seed all kills meet one run."""
    kinds = ["node", "head", "s3-stop"]
    words = ["--kills", str(len(kinds)), "--kinds", ",".join(kinds), "--lots", "24", "--seed", "5382"]
    done = chaos(*words, "--reconnect-s", "15", "--keep", str(tmp_path), timeout=1900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| all | {len(kinds)} | 0 | 0 |" in done.stdout
    assert (tmp_path / "kills.json").exists()


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_two_runs_on_one_cluster_under_kills(tmp_path: Path) -> None:
    words = ["--beside", "--kills", "6", "--kinds", "node,replica,worker,driver", "--lots", "30", "--seed", "3"]
    done = chaos(*words, "--keep", str(tmp_path), timeout=2900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 6 | 0 | 0 |" in done.stdout and "(the run beside)" in done.stdout


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_an_endpoint_that_fails_is_paid_once_under_kills(tmp_path: Path) -> None:
    """The short form is cluster/lots/test_paid.py, and without Ray engines/endpoint/test_paid_once.py."""
    done = chaos("--endpoint", "--kills", "8", "--lots", "40", "--seed", "2", "--keep", str(tmp_path), timeout=2900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 8 | 0 | 0 |" in done.stdout and " calls, 1280 needed" in done.stdout


@pytest.mark.nightly
@pytest.mark.timeout(9000)
def test_a_hundred_kills(tmp_path: Path) -> None:
    done = chaos("--kills", "100", "--seed", "1", "--keep", str(tmp_path), timeout=8900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 100 | 0 | 0 |" in done.stdout


def bearing(mark: str) -> list[str]:
    """Command lines of the processes that were started with it in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CHAOS_TEST") == mark:
                found.append(" ".join(process.cmdline()[:4]))
        except psutil.Error:
            continue
    return found


@pytest.mark.nightly
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_script_itself_is_ended(tmp_path: Path, signal_number: int) -> None:
    mark = secrets.token_hex(8)
    command = [sys.executable, "-m", "tests.chaos", "--kills", "1", "--lots", "30", "--kinds", "s3-freeze"]
    with open(tmp_path / "log", "wb") as log:
        run = subprocess.Popen(
            [*command, "--keep", str(tmp_path / "keep")],
            cwd=ROOT,
            env={**os.environ, "CHAOS_TEST": mark},
            stdout=log,
            stderr=log,
        )
    end = time.monotonic() + 300
    while "kill 1 " not in (tmp_path / "log").read_text():  # the store is frozen, the cluster at work
        assert run.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.1)
    assert any("raylet" in line for line in bearing(mark)) and any("weed" in line for line in bearing(mark))
    run.send_signal(signal_number)
    assert run.wait(timeout=120) != 0
    end = time.monotonic() + 60
    while left := bearing(mark):
        assert time.monotonic() < end, left
        time.sleep(0.5)
