"""Pools follow the cluster: a node that joins is put to use, one that drains is left, what fits nowhere is refused."""

import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from gristmill.cluster.pools.pool import Pool
from gristmill.cluster.preflight import request_of, seated
from gristmill.cluster.room.runs import RunReport
from gristmill.cluster.spec import ClusterSpec, PoolSpec
from gristmill.engines.needs import Needs
from tests import session
from tests.conftest import ROOT, gristmill
from tests.outputs import PATIENCE_S, kept_hashes, undisturbed, wait_for_commits
from tests.recipes import STAGES, canned

DRAIN_PREEMPTED = 2  # autoscaler.proto, DrainNodeReason


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with session.ray_cluster(num_cpus=2) as cluster:
        yield cluster


def test_a_node_joins_and_another_drains_in_mid_run(cluster: Cluster, tmp_path: Path) -> None:
    first = cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()
    out = str(tmp_path / "out")
    generator = {"pooled": True, "seconds_per_ask": 0.03, "num_gpus": 1.0}
    recipe = canned(tmp_path, num_asks=1920, generator=generator, cluster={"num_cpus": None, "max_replicas": 2})
    command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", out]
    env = {**os.environ, "RAY_ADDRESS": cluster.address}
    run = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_commits(out, 3, run)
    cluster.add_node(num_cpus=1, num_gpus=1)
    wait_until(lambda: len({node for _, node in replicas(out)}) == 2, run)
    client = GcsClient(address=cluster.address)
    deadline_ms = int((time.time() + 600) * 1000)
    accepted, why = client.drain_node(first.node_id, DRAIN_PREEMPTED, "spot", deadline_ms)
    assert accepted, why
    wait_until(lambda: "its node drains" in events(out), run)
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert "lost its worker" not in output  # it was left in peace, not lost
    last = [node for lot, node in sorted(replicas(out)) if lot >= 54]
    assert len(set(last)) == 1 and last[0] != first.node_id
    assert kept_hashes(out) == kept_hashes(undisturbed(num_asks=1920))


def events(out: str) -> str:
    return "".join(path.read_text() for path in sorted(Path(out, "events").glob("*.jsonl")))


def replicas(out: str) -> list[tuple[int, str]]:
    """(lot, node that made it) of the commits in the log."""
    lines = [json.loads(line) for line in events(out).splitlines()]
    return [(line["lot"], line["node"]) for line in lines if line["event"] == "commit"]


def wait_until(condition, run: subprocess.Popen, timeout_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)


def test_several_gpus_come_as_one_placement_group(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=2, num_gpus=2)
    cluster.add_node(num_cpus=2, num_gpus=4)
    cluster.wait_for_nodes()
    # A process of its own, since this one may have had another Ray before.
    code = "import sys; from tests.cluster.pools.test_elastic import several_gpus; several_gpus(sys.argv[1])"
    command = [sys.executable, "-c", code, cluster.address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


def report_of(pool: Pool) -> RunReport:
    return RunReport(True, {"engines": pool.fleet.nodes()})


def no_note(event: str, **values: object) -> None: ...


def several_gpus(address: str) -> None:
    """Pools whose replicas take several GPUs each, on the nodes of the cluster at `address`."""
    ray.init(address=address, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    try:

        class Idle:
            progress, throttle = (0, 0), None

            def open(self) -> None: ...

            async def facts(self) -> dict:
                return {}

            def close(self) -> None: ...

        spec = PoolSpec(replicas=1, max_replicas=8)
        for needs, most in ((Needs(num_gpus=4), 1), (Needs(num_gpus=2), 3), (Needs(num_gpus=3, across_nodes=True), 2)):
            events: queue.SimpleQueue = queue.SimpleQueue()
            request = request_of("out", "test", {"engines": (needs, spec)}, ClusterSpec())
            with seated(request, ClusterSpec()) as seat:
                allowed = partial(seat.width, "engines")
                pool = Pool("engines", Idle(), needs, spec, ClusterSpec(), no_note, events, allowed)
                pool.start()
                end = time.monotonic() + 60
                while pool.num_open < most and time.monotonic() < end:
                    pool.poll()
                    seat.poll(partial(report_of, pool), len(pool.members))
                    time.sleep(0.1)
            assert pool.num_open == pool.width == most, (needs, pool.num_open, pool.width, seat.grant)
            created = [g for g in placement_group_table().values() if g["state"] == "CREATED"]
            assert len(created) == most
            for group in created:
                nodes = set(group["bundles_to_node_id"].values())
                assert len(nodes) == 1 or needs.across_nodes
                assert sum(b.get("GPU", 0) for b in group["bundles"].values()) == needs.num_gpus
            pool.stop()
            assert not [g for g in placement_group_table().values() if g["state"] == "CREATED"]
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["generator.num_gpus=8"], "no node can ever hold the generator, which takes 1 CPU + 8 GPU on one node"),
        (["generator.num_cpus=64"], "no node can ever hold the generator, which takes 64 CPU"),
        (["cluster.replicas=5"], "5 engine(s) of 1 CPU are requested"),
        (["cluster.replicas=4"], "leave no CPU of 4 for the stages"),
        (["cluster.pools.language.replicas=4"], "language: 4 engine(s) of 1 CPU leave no CPU"),
    ],
)
def test_what_has_no_room_is_refused_before_anything_starts(settings: list[str], words: str, tmp_path: Path) -> None:
    assert session.NUM_CPUS == 4
    recipe = canned(tmp_path, generator={"pooled": True}, cluster={"num_cpus": None})
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"), *(w for s in settings for w in ("--set", s)))
    assert done.returncode == 2
    assert words in done.stderr, done.stderr


@pytest.mark.nightly
def test_a_stage_in_a_pool_of_its_own_gives_the_same_bytes(tmp_path: Path) -> None:
    names = [s["kind"] for s in STAGES]
    recipe = canned(
        tmp_path / "pools",
        generator={"pooled": True},
        cluster={"num_cpus": 5, "pools": {"language": {"replicas": 2}, names[0]: {"replicas": 1}}},
    )
    pooled = gristmill("produce", recipe, "--out", f"{tmp_path}/pools/out", own_process=True)  # for its five CPUs
    assert pooled.returncode == 0, pooled.stderr
    assert kept_hashes(f"{tmp_path}/pools/out") == kept_hashes(undisturbed())
    wrong = gristmill("produce", recipe, "--out", f"{tmp_path}/pools/out", "--set", "cluster.pools.langauge.replicas=1")
    assert wrong.returncode == 2 and "did you mean 'language'" in wrong.stderr
