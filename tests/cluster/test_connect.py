"""A local Ray listens on loopback only, with token authentication left as Ray has it."""

import json
import os
import subprocess
import sys

from tests.conftest import ROOT

LISTENERS = """
import json, os, psutil, ray
from cluster.connect import connected
from cluster.spec import ClusterSpec
with connected(ClusterSpec(num_cpus=1), lambda text: None):
    ray.get(ray.remote(lambda: 1).remote())
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [c.laddr.ip for p in mine for c in p.net_connections() if c.status == "LISTEN"]
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
