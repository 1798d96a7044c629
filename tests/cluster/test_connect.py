"""A local Ray listens on loopback only, with token authentication left as Ray has it; a lost head is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
import ray
from ray._private import ray_constants

from gristmill.cluster.connect import check_address, connected
from gristmill.cluster.spec import ClusterSpec
from gristmill.jobs.cli import main
from gristmill.records.errors import UserError
from tests.chaos.nodes import Nodes
from tests.conftest import ROOT
from tests.recipes import canned

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


TOKENS = [  # changes of the environment, and what the line says of the token
    ({"RAY_AUTH_TOKEN": "0" * 64}, "the one of RAY_AUTH_TOKEN is not the cluster's"),
    ({"RAY_AUTH_TOKEN": None}, "but there is no token"),
    ({"RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": "/no/such/file"}, "RAY_AUTH_TOKEN_PATH=/no/such/file is no file"),
    ({"RAY_AUTH_MODE": None}, "since RAY_AUTH_MODE is not set"),
    ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": None}, "since RAY_AUTH_MODE is disabled"),
]
CONNECT = """
import sys, time
from gristmill.cluster.connect import connected
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.errors import UserError
begin = time.monotonic()
try:
    with connected(ClusterSpec()):
        print("connected")
except UserError as error:
    print(error)
print(time.monotonic() - begin)
"""


def test_a_missing_or_wrong_token_is_one_line_at_once(tmp_path: Path) -> None:
    """Ray itself takes 20 s and does not name the token."""
    folder = Path(tempfile.mkdtemp(prefix="gm-head-", dir="/tmp"))
    nodes = Nodes(folder)
    try:
        nodes.start(0)
        cases = [({}, "connected"), *TOKENS]
        for changes, words in cases:
            env = {**os.environ, **nodes.env, "HOME": str(tmp_path), **changes}
            done = subprocess.run(
                [sys.executable, "-c", CONNECT],
                cwd=ROOT,
                env={name: value for name, value in env.items() if value is not None},
                capture_output=True,
                text=True,
            )
            *lines, took_s = done.stdout.splitlines()
            assert len(lines) == 1 and words in lines[0], done.stdout + done.stderr
            assert not changes or ("RAY_AUTH_MODE=token" in lines[0] and float(took_s) < 2 and not done.stderr)
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_ray_that_does_not_start_in_time_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises a bare Exception; any other error is not taken for it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for error, expected in (
        (Exception("The current node timed out during startup. This could happen because"), UserError),
        (OSError("no space left"), UserError),
        (MemoryError("no space left"), MemoryError),
    ):
        monkeypatch.setattr(ray, "init", mock.Mock(side_effect=error))
        with pytest.raises(expected, match="did not start|no space left"), connected(ClusterSpec(num_cpus=1)):
            pass
        assert ray_constants.ENABLE_RAY_CLUSTER and ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ


def test_a_run_whose_ray_does_not_start_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    late = Exception("The current node timed out during startup. This could happen because")
    monkeypatch.setattr(ray, "init", mock.Mock(side_effect=late))
    recipe = canned(tmp_path)
    out = tmp_path / "new" / "out"
    assert main(["produce", recipe, "--out", str(out)]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://127.0.0.1:10001", "ray job submit"),
        ("http://127.0.0.1:8265", "address of the dashboard"),
        ("https://head.example/ray", "address of the dashboard"),
        ("tcp://127.0.0.1:6379", "write host:6379"),
        ("somewhere", "write host:6379"),
        (":6379", "write host:6379"),
        ("127.0.0.1:99999", "cannot reach Ray at 127.0.0.1:99999"),
        (f"{'x' * 70}.example:6379", "cannot reach Ray"),
        ("127.0.0.1:9", "cannot reach Ray at 127.0.0.1:9"),
    ],
)
def test_an_address_of_another_kind_is_one_line_that_says_what_is_meant(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check_address(address)
    assert len(str(caught.value).splitlines()) == 1


LOCAL = """
import json, os, sys
from pathlib import Path
import ray
from gristmill.cluster.connect import connected
from gristmill.cluster.spec import ClusterSpec
before = dict(os.environ)
with connected(ClusterSpec(num_cpus=1)):
    @ray.remote
    def seen():
        return os.environ["RAY_AUTH_TOKEN_PATH"]
    token = Path(ray.get(seen.remote()))
    print(json.dumps([str(token), oct(token.stat().st_mode), oct(token.parent.stat().st_mode)]), flush=True)
    sys.stdin.read()
print(json.dumps([token.parent.exists(), {k: v for k, v in os.environ.items() if before.get(k) != v and "AUTH" in k}]))
"""


def test_local_rays_side_by_side_have_tokens_of_their_own_and_leave_nothing(tmp_path: Path) -> None:
    """The user's token for a cluster stays what it is, and is not used."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_A")}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of a cluster")
    env |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", LOCAL]
    runs = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    facts = [json.loads(run.stdout.readline()) for run in runs if run.stdout is not None]
    assert facts[0][0] != facts[1][0]
    assert all(modes == ["0o100600", "0o40700"] for _, *modes in facts)
    for run in runs:
        rest, _ = run.communicate("")
        assert run.returncode == 0 and json.loads(rest) == [False, {}]
    assert (tmp_path / ".ray" / "auth_token").read_text() == "of a cluster"
    assert [path.name for path in tmp_path.rglob("*")] == [".ray", "auth_token"]


@pytest.mark.nightly
def test_ctrl_c_twice_while_ray_starts_ends_with_130(tmp_path: Path) -> None:
    """However the second follows the first, nothing of Ray and nothing in --out remains."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_A")} | {"RAY_TMPDIR": str(tmp_path)}
    for number, (first_s, second_s) in enumerate([(0.0, 0.1), (0.5, 0.3), (1.5, 0.05), (2.5, 1.0)]):
        out = tmp_path / f"out-{number}"
        command = [sys.executable, "-m", "gristmill", "produce", canned(tmp_path), "--out", str(out)]
        run = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
        assert run.stderr is not None
        assert any("starting a local Ray" in line for line in run.stderr)
        time.sleep(first_s)  # places in the start, not waits for something
        run.send_signal(signal.SIGINT)
        time.sleep(second_s)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait() == 130, rest
        assert "Traceback" not in rest
        assert not out.exists() or not any(out.iterdir())
        assert not list(tmp_path.glob("gm-ray-*"))
