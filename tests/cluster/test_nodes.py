"""A real Ray of several nodes: the same bytes as on one machine, also when a node is lost on the way."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import session
from tests.conftest import ROOT, gristmill
from tests.outputs import PATIENCE_S, kept_hashes, undisturbed, wait_for_commits
from tests.recipes import canned

SLOW = {"generator": {"seconds_per_ask": 0.01, "pooled": True}, "cluster": {"num_cpus": None, "replicas": 2}}


@pytest.fixture
def nodes() -> Iterator[tuple[dict[str, str], list]]:
    """(environment that reaches the cluster, its worker nodes): a head and two workers."""
    with session.ray_cluster(num_cpus=1) as cluster:
        workers = [cluster.add_node(num_cpus=3) for _ in range(2)]
        cluster.wait_for_nodes()
        yield {"RAY_ADDRESS": cluster.address}, [cluster, *workers]


@pytest.mark.nightly  # the kill tests' short form kills a node, too
def test_a_node_is_lost_and_the_bytes_are_the_same(nodes, tmp_path: Path) -> None:
    env, (cluster, _, victim) = nodes
    recipe, out = canned(tmp_path, **SLOW), str(tmp_path / "out")
    command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", out]
    run = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_commits(out, 3, run)
    cluster.remove_node(victim, allow_graceful=False)
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert "connecting to Ray at" in output
    assert kept_hashes(out) == kept_hashes(undisturbed())
    assert gristmill("audit", out).returncode == 0


def test_an_address_without_a_cluster(tmp_path: Path) -> None:
    done = gristmill("produce", canned(tmp_path), "--out", str(tmp_path / "out"), env={"RAY_ADDRESS": "127.0.0.1:1"})
    assert done.returncode == 2 and "cannot reach Ray at 127.0.0.1:1" in done.stderr
