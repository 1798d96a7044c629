"""Engines without room wait as pending actors: an autoscaler adds nodes for them, and removes them after a kill."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import session
from tests.conftest import ROOT
from tests.outputs import PATIENCE_S
from tests.recipes import canned

PORT = 26_379
HEAD = "f" * 51 + "00000"  # id of the head, as the provider numbers its nodes
TYPES = {
    "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
    "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3},
}
COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


@contextlib.contextmanager
def autoscaling(folder: Path, minutes: float) -> Iterator[str]:
    """A cluster of one node with Ray's autoscaler, which starts further nodes as processes; yields its address."""
    session.stop_ray()
    config = {
        "cluster_name": "test", "max_workers": 3, "idle_timeout_minutes": minutes, "upscaling_speed": 10.0,
        "provider": {
            "type": "fake_multinode", "disable_node_updaters": True, "disable_launch_config_check": True,
            "gcs_address": f"127.0.0.1:{PORT}", "head_node_id": HEAD,
            "use_node_id_as_ip": True,  # the autoscaler knows nodes by address, and all of these have one
            "launch_multiple": True,  # else it starts one node whatever their number
        },
        "available_node_types": TYPES, "head_node_type": "ray.head.default", "auth": {}, "docker": {},
        "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [], **{name: [] for name in (*COMMANDS, *STARTS)},
    }  # fmt: skip
    (folder / "autoscaler.json").write_text(json.dumps(config))
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "start", "--head", "--block", f"--port={PORT}", "--num-cpus=2", "--include-dashboard=false"]
    command += ["--node-ip-address=127.0.0.1"]
    command += [f"--autoscaling-config={folder / 'autoscaler.json'}", "--disable-usage-stats"]
    env = {**os.environ, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_AUTH_MODE": "disabled"}
    env |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_CLOUD_INSTANCE_ID": HEAD}
    with open(folder / "head.log", "w") as log:
        head = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"127.0.0.1:{PORT}"
    finally:
        processes = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(30)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def num_gpus(address: str) -> tuple[int, int]:
    """GPUs of the cluster, and those that engines hold; (-1, -1) while it does not answer."""
    code = (
        "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); "
        "print(*(resources().get('GPU', 0) for resources in (ray.cluster_resources, ray.available_resources)))"
    )
    done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        return -1, -1
    gpus, free = map(float, done.stdout.split()[-2:])
    return int(gpus), int(gpus - free)


def wait_for_gpus(address: str, number: int) -> None:
    """Wait until the cluster has so many GPUs, with an engine on each."""
    end = time.monotonic() + PATIENCE_S
    while (gpus := num_gpus(address)) != (number, number):
        assert time.monotonic() < end, f"GPUs and those in use: {gpus}"
        time.sleep(1)


@pytest.mark.nightly
def test_nodes_come_for_what_waits_and_go_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with autoscaling(tmp_path, minutes=0.2) as address:
        wait_for_gpus(address, 0)
        generator = {"pooled": True, "seconds_per_ask": 0.01, "num_gpus": 1.0}
        widths = {"num_cpus": None, "replicas": 2, "max_replicas": 3}
        refused = canned(tmp_path / "refused", num_asks=960, generator=generator, cluster=widths)
        recipe = canned(
            tmp_path / "run", num_asks=960_000, generator=generator, cluster={**widths, "nodes_timeout_s": 300.0}
        )
        env = {**os.environ, "RAY_ADDRESS": address}
        command = [sys.executable, "-m", "gristmill", "produce"]
        done = subprocess.run(
            [*command, refused, "--out", str(tmp_path / "no")], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == 2 and "no room on the cluster" in done.stderr, done.stderr
        run = subprocess.Popen(
            [*command, recipe, "--out", str(tmp_path / "out")], cwd=ROOT, env=env, stderr=subprocess.DEVNULL
        )
        wait_for_gpus(address, 3)
        run.send_signal(signal.SIGKILL)
        run.wait()
        wait_for_gpus(address, 0)
