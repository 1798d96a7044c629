"""Whatever dies, the same command again ends with the same bytes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import outputs
from tests.conftest import ROOT, gristmill
from tests.outputs import PATIENCE_S, kept_hashes, num_committed, wait_for_commits
from tests.recipes import AT_ONCE, canned

NUM_LOTS = 20
SLOW = {"generator": {"seconds_per_ask": 0.03}}


def start(recipe: str, out: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", out, *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, str]:
    return kept_hashes(outputs.undisturbed())


def kill_one(run: subprocess.Popen, title: str, timeout_s: float = PATIENCE_S) -> None:
    """SIGKILL of the first process that works under this title; between two tasks a worker is called otherwise."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for process in psutil.Process(run.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                    return process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.01)
    raise AssertionError(f"no {title} in {timeout_s} s")


def finish_and_compare(recipe: str, out: str, undisturbed: dict[str, str]) -> None:
    done = gristmill("produce", recipe, "--out", out, *AT_ONCE)
    assert done.returncode == 0, done.stderr
    assert kept_hashes(out) == undisturbed
    audit = gristmill("audit", out)
    assert audit.returncode == 0, audit.stdout


# On S3 the kill tests' short form kills the driver, too.
@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.nightly)])
def test_a_second_driver_a_sigkill_and_ctrl_c_change_no_byte(
    where: str, tmp_path: Path, undisturbed: dict[str, str], request: pytest.FixtureRequest
) -> None:
    out = str(tmp_path / "out") if where == "local" else f"{request.getfixturevalue('s3')}/kill-{tmp_path.name}"
    recipe = canned(tmp_path, **SLOW)
    run = start(recipe, out)
    wait_for_commits(out, 1, run)
    second = gristmill("produce", recipe, "--out", out)
    assert second.returncode == 2
    assert "is being written by another driver" in second.stderr
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = num_committed(out)
    assert before < NUM_LOTS - 4

    run = start(recipe, out)
    wait_for_commits(out, before + 2, run)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 130, output
    assert f"gristmill produce {recipe} --out {out}" in output
    assert gristmill("audit", out).returncode == 0  # what is there is whole
    assert num_committed(out) < NUM_LOTS
    finish_and_compare(recipe, out, undisturbed)


def test_workers_the_dedup_index_and_an_engine_die(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    out = str(tmp_path / "out")
    settings = ("cluster.index_actors=2", "generator.pooled=true", "cluster.num_cpus=3")
    run = start(canned(tmp_path, **SLOW), out, *(word for s in settings for word in ("--set", s)))
    for lots, title in ((2, "ray::process_task"), (4, "ray::BandShard"), (6, "ray::Replica"), (9, "ray::process_task")):
        wait_for_commits(out, lots, run)
        kill_one(run, title)
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert "lost its worker while making; trying again" in output
    assert "the dedup index was lost and is built again" in output
    assert kept_hashes(out) == undisturbed


def test_another_width_gives_the_same_bytes(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    out = str(tmp_path / "out")
    wide = ["cluster.num_cpus=4", "cluster.window=3", "cluster.index_actors=3", "generator.seconds_per_ask=0"]
    done = gristmill("produce", canned(tmp_path), "--out", out, *(w for s in wide for w in ("--set", s)))
    assert done.returncode == 0, done.stderr
    assert kept_hashes(out) == undisturbed
