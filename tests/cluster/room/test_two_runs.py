"""Two drivers on one cluster: the second waits its turn, shares by weight, or is refused with what holds the room."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests import session
from tests.conftest import ROOT
from tests.jobs.flow.flows import chain, flow_file
from tests.outputs import PATIENCE_S, kept_hashes, undisturbed, wait_for_commits
from tests.recipes import canned

AT_ONCE_S = 60.0  # without work that would have to end first, on a busy machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with session.ray_cluster(num_cpus=4) as cluster:
        yield cluster


def start(
    cluster: Cluster, folder: Path, num_asks: int, replicas: int, seconds: float = 0.01, **spec
) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    generator = {"pooled": True, "seconds_per_ask": seconds, "num_cpus": 1.0}
    spec = {"num_cpus": None, "replicas": replicas, "start_timeout_s": 40.0, **spec}
    recipe = canned(folder, num_asks=num_asks, generator=generator, cluster=spec)
    command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", str(folder / "out")]
    env = {**os.environ, "RAY_ADDRESS": cluster.address}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def queue(cluster: Cluster, *arguments: str) -> str:
    command = [sys.executable, "-m", "gristmill", "queue", *arguments]
    env = {**os.environ, "RAY_ADDRESS": cluster.address}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(cluster: Cluster) -> list[dict[str, Any]]:
    return json.loads(queue(cluster, "--json"))["runs"]


def until(condition: Callable[[], bool], *runs: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        for run in runs:
            assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.3)


def output_of(run: subprocess.Popen) -> str:
    output, _ = run.communicate(timeout=PATIENCE_S)
    return output


def logged(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("out/events/*.jsonl")))


def test_a_second_run_on_a_full_cluster_waits_and_both_finish(cluster: Cluster, tmp_path: Path) -> None:
    first = start(cluster, tmp_path / "first", 960, 3)
    wait_for_commits(str(tmp_path / "first" / "out"), 2, first)
    first.send_signal(signal.SIGSTOP)  # it holds its room, and does not end before the others have seen that
    refused = start(cluster, tmp_path / "refused", 960, 3, wait_s=0.0)
    second = start(cluster, tmp_path / "second", 960, 3)
    words = output_of(refused)
    assert refused.returncode == 2
    assert "no room on the cluster: place" in words and "holds 3 engines" in words, words
    until(lambda: [run["state"] for run in shown(cluster)] == ["running", "waiting"], second)
    first.send_signal(signal.SIGCONT)
    assert output_of(first) and first.returncode == 0
    words = output_of(second)
    assert second.returncode == 0, words
    assert "waiting for room" in words and "holds 3 engines" in words
    whole = kept_hashes(undisturbed(num_asks=960))
    assert kept_hashes(str(tmp_path / "first" / "out")) == kept_hashes(str(tmp_path / "second" / "out")) == whole


@pytest.mark.nightly
def test_a_killed_run_leaves_nothing_behind(cluster: Cluster, tmp_path: Path) -> None:
    first = start(cluster, tmp_path / "first", 96_000, 3)
    wait_for_commits(str(tmp_path / "first" / "out"), 2, first)
    second = start(cluster, tmp_path / "second", 960, 3)
    until(lambda: "place 1 of 1" in queue(cluster), first, second)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert output_of(second) and second.returncode == 0
    until(lambda: not shown(cluster))


@pytest.mark.nightly
def test_what_waits_ends_at_once(cluster: Cluster, tmp_path: Path) -> None:
    first = start(cluster, tmp_path / "first", 96_000, 3)
    wait_for_commits(str(tmp_path / "first" / "out"), 2, first)
    flow = subprocess.Popen(
        [
            *(sys.executable, "-m", "gristmill", "flow"),
            flow_file(tmp_path, chain(texts={"stream": True})[:2]),
            *("--out", str(tmp_path / "out")),
        ],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: [run["state"] for run in shown(cluster)] == ["running", "waiting", "waiting"], first, flow)
    flow.send_signal(signal.SIGTERM)
    output, _ = flow.communicate(timeout=AT_ONCE_S)
    assert flow.returncode == 130 and "Traceback" not in output, output
    grows = start(cluster, tmp_path / "grows", 960, 1, nodes_timeout_s=600.0)  # admitted before its nodes are there
    assert grows.stdout and any("the run waits for its 1 CPU core(s)" in line for line in grows.stdout)
    grows.send_signal(signal.SIGTERM)
    output, _ = grows.communicate(timeout=AT_ONCE_S)
    assert grows.returncode == 130 and "Traceback" not in output, output
    assert '"loading"' not in logged(tmp_path / "grows"), "it has started no engine"
    assert first.poll() is None
    first.kill()
    first.wait()
    until(lambda: not shown(cluster))


@pytest.mark.nightly
def test_runs_divide_a_cluster_by_share_and_priority(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=6)
    cluster.wait_for_nodes()
    try:
        large = start(cluster, tmp_path / "large", 96_000, 1, 0.005, max_replicas=8, share=3.0)
        wait_for_commits(str(tmp_path / "large" / "out"), 2, large)
        small = start(cluster, tmp_path / "small", 96_000, 1, 0.005, max_replicas=8)

        def engines() -> list[int]:
            return [run["pools"]["generator"]["engines"] for run in shown(cluster)]

        until(lambda: engines() == [6, 2], large, small)
        urgent = start(cluster, tmp_path / "urgent", 960, 6, priority=1)
        assert output_of(urgent) and urgent.returncode == 0
        assert kept_hashes(str(tmp_path / "urgent" / "out")) == kept_hashes(undisturbed(num_asks=960))
        until(lambda: engines() == [6, 2], large, small)
        for run in (large, small):
            run.send_signal(signal.SIGTERM)
            assert run.wait(timeout=PATIENCE_S) == 130
        assert "another run takes its room" in logged(tmp_path / "large")
        assert '"retry"' not in logged(tmp_path / "large")  # its lots were finished before
    finally:
        cluster.remove_node(node)


@pytest.mark.nightly
def test_quotas_are_set_and_shown(cluster: Cluster, tmp_path: Path) -> None:
    assert "team=x" in queue(cluster, "--quota", "team=x:2")
    run = start(cluster, tmp_path / "over", 960, 3, wait_s=0.0, labels={"team": "x"})
    words = output_of(run)
    assert run.returncode == 2 and "the quota of team=x is 2 devices" in words, words
    queue(cluster, "--quota", "team=x:none")
    run = start(cluster, tmp_path / "within", 960, 3, labels={"team": "x"})
    assert output_of(run) and run.returncode == 0
