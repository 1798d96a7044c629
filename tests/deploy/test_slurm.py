"""The Slurm script with a real Ray of two nodes: only `srun` and `scontrol` are stood in for, by shell scripts."""

import os
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
if [ "$1" = show ]; then printf 'node1\\nnode2\\n'; else echo "$@" >> "$GRISTMILL_ROOM/scontrol"; fi
"""


def free_job() -> int:
    """The number of a job whose port is free."""
    while not FIRST_PORT <= (port := free_port()) < FIRST_PORT + NUM_PORTS:
        pass
    return NUM_PORTS + port - FIRST_PORT


@pytest.fixture
def sbatch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Runs the script as Slurm would, on two "nodes" of two cores; checks that it leaves nothing behind."""
    tools, room, jobs = tmp_path / "bin", tmp_path / "room", []
    tools.mkdir()
    room.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def run(*arguments: str) -> subprocess.Popen:
        job = free_job()
        jobs.append(job)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))} | {
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_CPUS_ON_NODE": "2",
            "GRISTMILL_ROOM": str(room),
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

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
    lines = SCRIPT.read_text().splitlines()
    last = max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[:last])  # Slurm stops reading at the first command


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
    assert run.returncode == 2 and "no such recipe file" in output
    assert not (tmp_path / "room" / "scontrol").exists()
