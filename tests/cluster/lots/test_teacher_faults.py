"""The real engine crashes of one ask, and stops answering: the ask is found, the engine replaced, no row is lost."""

import os
import signal
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.cluster.lots.test_crashes import start
from tests.conftest import gristmill
from tests.outputs import kept_hashes, wait_for_commits
from tests.recipes import teacher

pytestmark = [pytest.mark.vllm, pytest.mark.nightly, pytest.mark.timeout(1800)]
CLUSTER = {"num_cpus": 2, "lots_per_replica": 2, "stall_timeout_s": 30}


def test_an_ask_that_crashes_vllm_is_rejected_and_its_mates_survive(tmp_path: Path) -> None:
    items = [f"the number {n}" for n in range(24)]
    items[13] = "a volcano"
    engine = {"logits_processors": ["tests.poison:Killer"], "max_model_len": 512}
    recipe = teacher(
        tmp_path,
        source={"items": items},
        generator={"kind": "teacher", "model": "package:smollm2", "engine": engine, "sampling": {"max_tokens": 24}},
        cluster=CLUSTER,
    )
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"), timeout=1500)
    assert done.returncode == 0, done.stderr
    assert "lot 1, row 5: rejected (engine_crash)" in done.stderr
    paths = [*(tmp_path / "out" / "kept").glob("*"), *(tmp_path / "out" / "rejected").glob("*")]
    rejects = [r for path in paths for r in pq.read_table(path).column("reject").to_pylist()]
    assert len(rejects) == 24
    assert rejects.count("generator:engine_crash") == 1
    assert gristmill("audit", str(tmp_path / "out")).returncode == 0


def test_an_engine_that_stops_answering_is_replaced(tmp_path: Path) -> None:
    out, undisturbed = str(tmp_path / "out"), str(tmp_path / "undisturbed")
    recipe = teacher(tmp_path, num_asks=48, cluster=CLUSTER)
    run = start(recipe, out)
    wait_for_commits(out, 1, run, timeout_s=400)
    frozen = [p for p in psutil.Process(run.pid).children(recursive=True) if "VLLM" in " ".join(p.cmdline())]
    assert frozen
    for process in frozen:
        os.kill(process.pid, signal.SIGSTOP)
    output, _ = run.communicate(timeout=900)
    assert run.returncode == 0, output
    assert "trying again" in output
    end = time.monotonic() + 60
    while any(p.is_running() for p in frozen) and time.monotonic() < end:
        time.sleep(0.5)
    assert not any(p.is_running() for p in frozen), "a frozen engine keeps the device"
    quiet = gristmill("produce", recipe, "--out", undisturbed, timeout=900)
    assert quiet.returncode == 0, quiet.stderr
    assert kept_hashes(out) == kept_hashes(undisturbed)
