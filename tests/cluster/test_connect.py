"""A local Ray listens on loopback only, with token authentication left as Ray has it; a lost head is told."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import ray
from ray._private import ray_constants

from gristmill.cluster.connect import connected
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.errors import UserError
from tests.chaos.nodes import Nodes
from tests.conftest import ROOT

LISTENERS = """
import json, os, psutil, ray
from gristmill.cluster.connect import connected
from gristmill.cluster.spec import ClusterSpec
with connected(ClusterSpec(num_cpus=1)):
    ray.get(ray.remote(lambda: 1).remote())
    found = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            found += [c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"]
        except psutil.NoSuchProcess:
            continue  # a short-lived helper of Ray's
    print(json.dumps({"addresses": found, "mode": os.environ.get("RAY_AUTH_MODE")}))
"""


def test_nothing_listens_beyond_loopback() -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    done = subprocess.run([sys.executable, "-c", LISTENERS], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["addresses"]) > 3
    assert {address.removeprefix("::ffff:") for address in found["addresses"]} <= {"127.0.0.1", "::1"}
    assert found["mode"] != "disabled"


LEFT_ALONE = """
import sys
import time
from gristmill.cluster.connect import connected
from gristmill.cluster.spec import ClusterSpec
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with connected(ClusterSpec()):
    print("connected", flush=True)
    time.sleep(300)
"""


def test_a_lost_head_is_told_before_ray_ends_the_driver() -> None:
    folder = Path(tempfile.mkdtemp(prefix="gm-head-", dir="/tmp"))  # short, since Ray keeps sockets below it
    nodes = Nodes(folder)
    try:
        nodes.start(0)
        env = {**os.environ, **nodes.env}
        driver = subprocess.Popen(
            [sys.executable, "-c", LEFT_ALONE],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert driver.stdout is not None
        assert any(line.startswith("connected") for line in driver.stdout)
        assert nodes.head is not None
        control_store = next(p for p in nodes.head.processes() if "gcs_server" in " ".join(p.cmdline()))
        control_store.kill()
        told = next((line for line in driver.stdout if "does not answer" in line), "")
        assert nodes.env["RAY_ADDRESS"] in told
        assert "run the same command" in told
        driver.kill()
        driver.communicate()
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_ray_that_does_not_start_in_time_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises a bare Exception; any other error is not taken for it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for error, expected in (
        (Exception("The current node timed out during startup. This could happen because"), UserError),
        (OSError("no space left"), OSError),
    ):
        monkeypatch.setattr(ray, "init", mock.Mock(side_effect=error))
        with pytest.raises(expected), connected(ClusterSpec(num_cpus=1)):
            pass
        assert ray_constants.ENABLE_RAY_CLUSTER and ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ
