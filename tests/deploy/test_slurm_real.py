"""The Slurm script on a real Slurm of three nodes on this machine: a lost node, a killed driver, a time that is up."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, gristmill
from tests.deploy.slurm_cluster import COMMANDS, SlurmCluster
from tests.deploy.test_slurm import SCRIPT, STAGES, driver_of
from tests.outputs import num_committed
from tests.recipes import canned

PATH = f"{os.environ['PATH']}:/usr/sbin"
MISSING = [command for command in COMMANDS if not shutil.which(command, path=PATH)]
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(bool(MISSING), reason="needs Slurm (Debian: slurm-wlm, munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd does"),
]
TIMEOUT_S = 300.0
OVER = {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"}


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    folder = Path(tempfile.mkdtemp(prefix="gm-slurm-", dir="/tmp"))
    cluster = SlurmCluster(folder, 3)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def sbatch(slurm: SlurmCluster, folder: Path, num_nodes: int, num_asks: int) -> tuple[str, str, str]:
    """(number of the job, recipe, output)"""
    recipe = canned(
        folder,
        num_asks=num_asks,
        stages=STAGES,
        generator={"seconds_per_ask": 0.05, "pooled": True},
        cluster={"num_cpus": None, "replicas": num_nodes},
    )
    settings = {"PYTHONPATH": str(ROOT), "GRISTMILL_ROOM": str(folder / "room"), "GRISTMILL_MIN_NODES": "1"}
    slurm.env |= {name: value for name, value in settings.items()}
    out = str(folder / "out")
    words = ["sbatch", "--parsable", f"--nodes={num_nodes}", f"--chdir={ROOT}", f"--output={folder / 'log'}"]
    number = slurm.call(*words, str(SCRIPT), recipe, "--out", out)
    assert number.isdigit()
    return number, recipe, out


def wait(slurm: SlurmCluster, folder: Path, what: str, is_true) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < end, f"{what}: {(folder / 'log').read_text()[-3000:]}"
        time.sleep(0.3)


def test_a_lost_node_costs_its_lots_only(slurm: SlurmCluster, tmp_path: Path) -> None:
    job, _, out = sbatch(slurm, tmp_path, 3, 4800)
    wait(slurm, tmp_path, "lots", lambda: num_committed(out) > 5)
    slurm.lose("n3", job)
    wait(slurm, tmp_path, "the loss", lambda: "down" in {state.rstrip("*") for state in slurm.states()})
    assert slurm.job(job)["JobState"] == "RUNNING"
    wait(slurm, tmp_path, "the end", lambda: slurm.job(job)["JobState"] in OVER)
    found = slurm.job(job)
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("COMPLETED", "0:0", "0")
    assert "Node failure on n3" in (tmp_path / "log").read_text()
    assert gristmill("audit", out).returncode == 0


def test_a_killed_driver_and_a_time_that_is_up_are_requeued_and_resume(slurm: SlurmCluster, tmp_path: Path) -> None:
    job, recipe, out = sbatch(slurm, tmp_path, 2, 3200)
    wait(slurm, tmp_path, "lots", lambda: num_committed(out) > 2)
    os.kill(int(driver_of(recipe).name), signal.SIGKILL)
    requeued(slurm, tmp_path, job, "1")
    before = num_committed(out)
    wait(slurm, tmp_path, "more lots", lambda: num_committed(out) > before + 2)
    slurm.call("scancel", "--signal=USR1", "--batch", job)
    requeued(slurm, tmp_path, job, "2")
    wait(slurm, tmp_path, "the end", lambda: slurm.job(job)["JobState"] in OVER)
    text = (tmp_path / "log").read_text()
    assert slurm.job(job)["ExitCode"] == "0:0", text[-3000:]
    assert text.count("going on after") == 2 and "exit code 137, loss" in text
    assert "stopping after the work in commit" in text  # the driver was asked, not killed
    assert gristmill("audit", out).returncode == 0


def requeued(slurm: SlurmCluster, folder: Path, job: str, restarts: str) -> None:
    """Wait until the job runs again; Slurm holds a requeued job back for two minutes, which is cut short here."""

    def is_running() -> bool:
        found = slurm.job(job)
        if found["JobState"] == "PENDING":
            slurm.call("scontrol", "update", f"jobid={job}", "starttime=now")
        return found["JobState"] == "RUNNING" and found["Restarts"] == restarts

    wait(slurm, folder, f"restart {restarts}", is_running)


def test_a_cancelled_job_stays_cancelled(slurm: SlurmCluster, tmp_path: Path) -> None:
    job, _, out = sbatch(slurm, tmp_path, 2, 3200)
    wait(slurm, tmp_path, "lots", lambda: num_committed(out) > 2)
    slurm.call("scancel", job)
    wait(slurm, tmp_path, "the end", lambda: not slurm.call("squeue", "-h", "-j", job))
    assert slurm.job(job)["JobState"] == "CANCELLED" and slurm.job(job)["Restarts"] == "0"
