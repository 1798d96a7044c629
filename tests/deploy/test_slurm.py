"""The Slurm script with a real Ray of two nodes: only `srun` and `scontrol` are stood in for, by shell scripts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, gristmill
from tests.outputs import num_committed, wait_for_commits
from tests.recipes import canned
from tests.s3server import free_port

SCRIPT = ROOT / "deploy" / "slurm" / "gristmill.sbatch"
FIRST_PORT, NUM_PORTS = 20000, 20000  # as the script reckons them from the job's number
STAGES = [{"kind": "finish"}, {"kind": "language"}]
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then printf "$TEST_NODES"; else echo "$@" >> "$GRISTMILL_ROOM/scontrol"; fi
"""


def free_job() -> int:
    """The number of a job whose port is free."""
    while not FIRST_PORT <= (port := free_port()) < FIRST_PORT + NUM_PORTS:
        pass
    return NUM_PORTS + port - FIRST_PORT


class Run(subprocess.Popen):
    """The script of one job; `job` is its number."""

    job: int


def driver_of(recipe: str) -> Path:
    """The folder in /proc of the driver: `produce` without --dry-run."""
    while True:
        for process in Path("/proc").iterdir():
            words = _cmdline(process).split("\0") if process.name.isdigit() else []
            if ["gristmill", "produce", recipe] == words[2:5] and "--dry-run" not in words:
                return process


@pytest.fixture
def sbatch(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Runs the script as Slurm would, on two "nodes" of two cores; checks that it leaves nothing behind."""
    tools, room, jobs = tmp_path / "bin", tmp_path / "room", []
    tools.mkdir()
    room.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def run(*arguments: str, **settings: str) -> Run:
        job = free_job()
        jobs.append(job)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))} | {
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_CPUS_ON_NODE": "2",
            "GRISTMILL_ROOM": str(room),
            "TEST_NODES": "node1\\nnode2\\n",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            **settings,
        }
        process = Run(
            ["bash", str(SCRIPT), *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        process.job = job
        return process

    yield run
    for job in jobs:
        assert not (room / str(job)).exists()  # the token is gone with the job
        mark = f"/tmp/ray-{job}/"
        left = [p for p in Path("/proc").iterdir() if p.name.isdigit() and mark in _cmdline(p)]
        for process in left:
            os.kill(int(process.name), signal.SIGKILL)
        shutil.rmtree(mark, ignore_errors=True)
        assert not left


def _cmdline(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


def test_the_script_parses() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    text = SCRIPT.read_text()
    lines = text.splitlines()
    last = max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[:last])  # Slurm stops reading at the first command
    assert "#SBATCH --no-kill" in lines and "#SBATCH --requeue" in lines
    settings = set(re.findall(r"^#   (GRISTMILL_\w+)", text, re.MULTILINE))
    assert settings == set(re.findall(r"\bGRISTMILL_\w+", "\n".join(lines[last:])))
    runbook = (ROOT / "deploy" / "runbook.md").read_text()
    assert settings - {"GRISTMILL_METRICS_PORT"} <= set(re.findall(r"GRISTMILL_\w+", runbook))


@pytest.mark.nightly
def test_a_run_is_requeued_when_its_time_is_up_and_then_resumes(sbatch, tmp_path: Path) -> None:
    slow = {"generator": {"seconds_per_ask": 0.05, "pooled": True}, "cluster": {"num_cpus": None, "replicas": 2}}
    recipe, out = canned(tmp_path, num_asks=640, stages=STAGES, **slow), str(tmp_path / "out")
    run = sbatch(recipe, "--out", out)
    wait_for_commits(out, 2, run)
    token = next((tmp_path / "room").glob("*/token"))
    assert token.stat().st_mode & 0o077 == 0 and token.parent.stat().st_mode & 0o077 == 0
    run.send_signal(signal.SIGUSR1)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 130, output
    assert (tmp_path / "room" / "scontrol").read_text().split() == ["requeue", token.parent.name]
    before = num_committed(out)
    assert 2 <= before < 20

    slow["generator"]["seconds_per_ask"] = 0
    fast = canned(tmp_path, num_asks=640, stages=STAGES, **slow)
    again = sbatch(fast, "--out", out)
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert f"going on after {before} committed lots" in output
    assert gristmill("audit", out).returncode == 0


def test_a_run_that_cannot_be_done_is_not_requeued(sbatch, tmp_path: Path) -> None:
    run = sbatch(str(tmp_path / "no.toml"), "--out", str(tmp_path / "out"))
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 2 and "no such recipe file" in output and "it is not retried" in output
    assert not (tmp_path / "room" / "scontrol").exists()


SLOW = {"generator": {"seconds_per_ask": 0.05, "pooled": True}, "cluster": {"num_cpus": None, "replicas": 2}}


@pytest.mark.nightly
def test_a_killed_driver_is_requeued_so_often_and_no_more(sbatch, tmp_path: Path) -> None:
    """Through a prefix, as of a container; with the metrics of both nodes in a file of targets."""
    recipe, out = canned(tmp_path, num_asks=640, stages=STAGES, **SLOW), str(tmp_path / "out")
    run = sbatch(recipe, "--out", out, GRISTMILL_EXEC="env TEST_INSIDE=1", GRISTMILL_MAX_REQUEUES="1")
    wait_for_commits(out, 2, run)
    room = tmp_path / "room"
    while not (files := list(room.glob("targets/*.json"))):
        assert run.poll() is None
    (targets,) = json.loads(files[0].read_text())
    assert len(targets["targets"]) >= 2
    driver = driver_of(recipe)
    assert "TEST_INSIDE=1" in (driver / "environ").read_text().split("\0")
    os.kill(int(driver.name), signal.SIGKILL)
    output, _ = run.communicate(timeout=120)
    job = str(run.job)
    assert run.returncode == 137 and "it is retried" in output, output
    assert (room / "scontrol").read_text().split() == ["requeue", job] and not list(room.glob("targets/*"))

    (room / "scontrol").unlink()
    (room / f"losses-{job}").rename(room / "losses")
    again = sbatch(recipe, "--out", out, GRISTMILL_MAX_REQUEUES="1")
    (room / "losses").rename(room / f"losses-{again.job}")
    wait_for_commits(out, 4, again)
    driver = driver_of(recipe)
    os.kill(int(driver.name), signal.SIGKILL)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 137 and not (room / "scontrol").exists(), output


@pytest.mark.nightly
def test_a_cancelled_job_is_not_requeued(sbatch, tmp_path: Path) -> None:
    recipe, out = canned(tmp_path, num_asks=640, stages=STAGES, **SLOW), str(tmp_path / "out")
    run = sbatch(recipe, "--out", out)
    wait_for_commits(out, 2, run)
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 130, output
    assert not (tmp_path / "room" / "scontrol").exists()


@pytest.mark.nightly
def test_a_job_starts_with_the_nodes_that_have_joined(sbatch, tmp_path: Path) -> None:
    fast = {"generator": {"pooled": True}, "cluster": {"num_cpus": None, "replicas": 2}}
    recipe, out = canned(tmp_path, num_asks=64, stages=STAGES, **fast), str(tmp_path / "out")
    three = {"TEST_NODES": "node1\\nnode2\\nnode3\\n", "GRISTMILL_NODES_WAIT_S": "8"}  # the third never joins
    output, _ = (run := sbatch(recipe, "--out", out, **three)).communicate(timeout=200)
    assert run.returncode == 75 and "of 3 nodes joined in 8 s: fewer than GRISTMILL_MIN_NODES=3" in output, output
    assert "requeue" in (tmp_path / "room" / "scontrol").read_text()
    output, _ = (run := sbatch(recipe, "--out", out, **three, GRISTMILL_MIN_NODES="1")).communicate(timeout=200)
    assert run.returncode == 0 and "nodes joined in 8 s: starting with these" in output, output
