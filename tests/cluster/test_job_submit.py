"""`ray job submit` against a real head with its job server: token authentication on, the upload small and clean."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, gristmill
from tests.recipes import canned
from tests.s3server import free_port

MAX_UPLOAD_BYTES = 4 * 2**20
UP_TIMEOUT_S = 60.0
BIN = Path(sys.executable).parent
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "a-test-value-that-must-not-travel",
    "AWS_SESSION_TOKEN": "another-test-value-that-must-not-travel",
}
SECRETS = re.compile(
    rb"AKIA[0-9A-Z]{16}|a-test-value|another-test-value|aws_secret_access_key\s*=\s*[a-z0-9/+]{16}", re.IGNORECASE
)


def bare_python(folder: Path) -> Path:
    """A Python of its own with the packages of this one, but without gristmill: a node with the dependencies only."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    # The .pth files of a folder that a .pth file names are not read: an editable install of gristmill is not there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


class Head:
    """A Ray head on ports of its own, in a folder of its own; `stop` ends its processes and no others."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gm-", dir="/tmp"))  # sockets want a short path
        self.python = bare_python(self.folder / "venv")
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.address = f"http://127.0.0.1:{free_port()}"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))},
            **AWS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "AUTOSCALER_METRIC_PORT": str(free_port()),
            "DASHBOARD_METRIC_PORT": str(free_port()),
            "PATH": f"{self.python.parent}:{BIN}:{os.environ['PATH']}",  # the job's `python` is the one of the node
        }
        self.port = free_port()  # of drivers that connect from elsewhere
        ports = ("dashboard-agent-listen-port", "ray-client-server-port", "metrics-export-port")
        self.command = [
            str(self.python),
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
            "--num-cpus=2",
        ]
        self.command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.address.rpartition(':')[2]}"]
        self.command += [
            f"--temp-dir={self.folder}",
            f"--port={self.port}",
            *(f"--{name}={free_port()}" for name in ports),
        ]

    def start(self) -> None:
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(self.command, env=self.env, cwd=self.folder, stdout=log, stderr=log)
        end = time.monotonic() + UP_TIMEOUT_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.address}/api/version", timeout=5):
                    break
            except urllib.error.HTTPError:
                break  # it answers, and wants a token
            except OSError:
                time.sleep(0.2)
        else:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def ray(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ray", *arguments], cwd=ROOT, env={**self.env, **env}, capture_output=True, text=True, timeout=150
        )

    def uploads(self) -> list[Path]:
        """Where the node has unpacked what was uploaded."""
        folder = self.folder / "session_latest" / "runtime_resources" / "working_dir_files"
        return [path for path in folder.iterdir() if path.is_dir()]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)  # with --block, that ends every process of this node
        self.process.wait(timeout=60)
        end = time.monotonic() + UP_TIMEOUT_S
        while (left := self._pids()) and time.monotonic() < end:  # its agents follow it by themselves
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, f"processes of the head outlived it: {left}"

    def _pids(self) -> list[int]:
        mark = f"{self.folder}/".encode()
        return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and mark in _cmdline(p)]


def _cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    head = Head()
    try:
        head.start()
        yield head
    finally:
        head.stop()


def test_the_node_has_no_gristmill(head: Head) -> None:
    done = subprocess.run([head.python, "-c", "import ray, pyarrow; import gristmill"], cwd="/", capture_output=True)
    assert b"No module named 'gristmill'" in done.stderr


def test_a_submitted_job_makes_a_sound_output(head: Head, tmp_path: Path) -> None:
    stages = [{"kind": "finish"}, {"kind": "language"}, {"kind": "dedup"}]
    recipe, out = canned(tmp_path, num_asks=128, stages=stages), str(tmp_path / "out")
    submit = ["job", "submit", "--address", head.address, "--submission-id", "mill", "--working-dir", "."]
    done = head.ray(*submit, "--", "python", "-m", "gristmill", "produce", recipe, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "connecting to Ray at" in done.stdout and "canned-test: complete" in done.stdout
    assert "Job 'mill' succeeded" in head.ray("job", "status", "--address", head.address, "mill").stdout
    assert gristmill("audit", out).returncode == 0

    (upload,) = head.uploads()
    files = [p for p in upload.rglob("*") if p.is_file() and "__pycache__" not in p.parts]  # the job compiles
    assert {"gristmill", "jobs", "cluster", "generators", "stages", "engines", "records", "recipes"} <= {
        p.name for p in upload.iterdir()
    }
    assert not {"tests", "deploy", ".venv", ".git", "out", ".cache"} & {p.name for p in upload.iterdir()}
    assert sum(p.stat().st_size for p in files) < MAX_UPLOAD_BYTES
    assert not [p for p in files if SECRETS.search(p.read_bytes())]
    assert not SECRETS.search(done.stdout.encode() + done.stderr.encode())
    assert not [p for p in Path(out).rglob("*") if p.is_file() and SECRETS.search(p.read_bytes())]


def test_nobody_submits_without_the_token(head: Head) -> None:
    submit = ["job", "submit", "--address", head.address, "--no-wait", "--", "echo", "intruder"]
    wrong = head.ray(*submit, RAY_AUTH_TOKEN="0" * 64)
    assert wrong.returncode != 0 and "token" in wrong.stderr + wrong.stdout
    none = head.ray(*submit, RAY_AUTH_MODE="disabled")
    assert none.returncode != 0 and "token" in none.stderr + none.stdout
    listed = head.ray("job", "list", "--address", head.address)
    assert listed.returncode == 0 and "intruder" not in listed.stdout


def test_what_lies_beside_the_code_stays_at_home(tmp_path: Path) -> None:
    """The package that Ray makes of a tree with secrets, data and environments in it."""
    from ray._private.runtime_env.packaging import create_package

    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (".gitignore", ".rayignore", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    for name in ("gristmill", "engines", "cluster", "jobs", "recipes", "docs", "tests"):
        shutil.copytree(ROOT / name, tree / name)
    (tree / ".venv").symlink_to(Path(sys.prefix))
    (tree / "topics.jsonl").write_text('{"topic": "rivers"}\n')
    secret = "\n".join(f"{name}={value}" for name, value in AWS.items())
    for name in (".env", ".env.prod", ".aws/credentials", "key.pem", "recipes/key.pem", "deploy/kuberay/secret.yaml"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(secret)
    for name in ("out/demo/kept/part-00000000.parquet", ".cache/models/weights", "scripts/setup.sh"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"\0" * 4096)
    create_package(str(tree), tmp_path / "upload.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "upload.zip") as upload:
        names = {name for name in upload.namelist() if not name.endswith("/")}
        assert not [name for name in names if SECRETS.search(upload.read(name))]
    assert {"topics.jsonl", "gristmill/__main__.py", "jobs/cli.py", "recipes/rephrase.toml"} <= names
    tops = {name.partition("/")[0] for name in names}
    plain = {".gitignore", ".rayignore", "README.md", "pyproject.toml", "topics.jsonl"}
    assert tops == plain | {"gristmill", "engines", "cluster", "jobs", "recipes"}
    assert not [name for name in names if "__pycache__" in name]
    assert (tmp_path / "upload.zip").stat().st_size < MAX_UPLOAD_BYTES


PLUGIN = """
from dataclasses import dataclass

import pyarrow as pa

from gristmill import Findings, Stage
from gristmill.generators.chains.families.gaussian import Gaussian
from plugin_helper import WORD


@dataclass(frozen=True)
class HoldsSpec:
    min_count: int = 1


class Holds(Stage):
    kind = "holds"
    Spec = HoldsSpec

    def columns(self):
        return [pa.field("num_words", pa.int64())]

    def find(self, rows):
        counts = [text.split().count(WORD) for text in rows.column("text").to_pylist()]
        reasons = [None if count >= self.spec.min_count else "missing" for count in counts]
        return Findings({"num_words": pa.array(counts, pa.int64())}, pa.array(reasons, pa.string()))


class Twin(Gaussian):
    kind = "twin"
"""


def plugins(folder: Path) -> None:
    """A module with a stage and a family of chains, and a helper that it imports."""
    (folder / "travelling.py").write_text(PLUGIN)
    (folder / "plugin_helper.py").write_text("WORD = 'the'\n")


def test_a_driver_elsewhere_brings_the_package_and_plugins_along(head: Head, tmp_path: Path) -> None:
    plugins(tmp_path)
    stages = [{"kind": "travelling:Holds"}, {"kind": "dedup"}]
    recipe, out = canned(tmp_path, num_asks=64, stages=stages, cluster={"num_cpus": None}), str(tmp_path / "out")
    env = {**head.env, "RAY_ADDRESS": f"127.0.0.1:{head.port}"}
    done = gristmill("produce", recipe, "--out", out, env=env, own_process=True)
    assert done.returncode == 0, done.stderr
    assert gristmill("audit", out).returncode == 0
    study = tmp_path / "study.toml"
    study.write_text(
        'name = "plugged"\nn = 20\ngenerations = 3\nchains = 8\n[family]\nkind = "travelling:Twin"\n[regimes.replace]\n'
    )
    done = gristmill("study", str(study), "--out", str(tmp_path / "study"), env=env, own_process=True)
    assert done.returncode == 0, done.stderr
    # An audit has no recipe, beside which the module would be found.
    assert "put travelling.py beside" in gristmill("audit", str(tmp_path / "study")).stderr
    audit = gristmill("audit", str(tmp_path / "study"), env={"PYTHONPATH": str(tmp_path)}, own_process=True)
    assert audit.returncode == 0, audit.stderr
