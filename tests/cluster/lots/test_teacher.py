"""The real engine through the whole run: killed and resumed, it writes the same bytes."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster.lots.test_crashes import start
from tests.conftest import gristmill
from tests.outputs import kept_hashes, num_committed, wait_for_commits
from tests.recipes import teacher

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
NUM_LOTS = 8


def is_engine(process: psutil.Process) -> bool:
    return any(title in " ".join(process.cmdline()) for title in ("VLLM", "ray::Replica"))


def children_are_gone(processes: list[psutil.Process], timeout_s: float = 60) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            return True
        time.sleep(0.5)
    return False


def test_killed_and_resumed_the_teacher_writes_the_same_bytes(tmp_path: Path) -> None:
    recipe = teacher(tmp_path, num_asks=8 * NUM_LOTS, lot_size=8, cluster={"num_cpus": 2, "lots_per_replica": 2})
    out, undisturbed = str(tmp_path / "out"), str(tmp_path / "undisturbed")
    run = start(recipe, out)
    wait_for_commits(out, 1, run, timeout_s=400)
    children = [p for p in psutil.Process(run.pid).children(recursive=True) if is_engine(p)]
    assert children
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert num_committed(out) < NUM_LOTS
    assert children_are_gone(children), "engines outlive their driver and keep the device"
    resumed = gristmill("produce", recipe, "--out", out, timeout=600)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after" in resumed.stderr
    # Another number of lots in flight makes other batches; the bytes must not depend on them.
    other = gristmill("produce", recipe, "--out", undisturbed, "--set", "cluster.lots_per_replica=4", timeout=600)
    assert other.returncode == 0, other.stderr
    assert kept_hashes(out) == kept_hashes(undisturbed)
    assert gristmill("audit", out).returncode == 0
