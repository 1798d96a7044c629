"""Fixtures: a real S3 server, a local Ray, small recipes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("gristmill", deadline=None)  # shared cores: no timed tests
settings.load_profile("gristmill")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
ROOT = Path(__file__).parent.parent

S3_KEYS = {"AWS_ACCESS_KEY_ID": "gristmill", "AWS_SECRET_ACCESS_KEY": "gristmill-secret", "AWS_REGION": "us-east-1"}
S3_CONFIG = """{"identities": [{"name": "test", "credentials":
 [{"accessKey": "gristmill", "secretKey": "gristmill-secret"}], "actions": ["Admin", "Read", "Write", "List"]}]}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real SeaweedFS S3 server on loopback; yields the environment that reaches it."""
    import boto3

    folder = tmp_path_factory.mktemp("seaweedfs")
    (folder / "s3.json").write_text(S3_CONFIG)
    (folder / "data").mkdir()
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    grpc = {f"{name}.port.grpc": free_port() for name in ports}
    command = [str(Path(sys.executable).parent / "weed"), "server", "-s3", "-filer", f"-s3.config={folder}/s3.json"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}/data", "-volume.max=50"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}={port}" for name, port in grpc.items()]
    # Its further servers listen on fixed ports: two test runs on one machine would meet there.
    command += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    env = {**S3_KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}", "AWS_EC2_METADATA_DISABLED": "true"}
    try:
        client = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        for _ in range(120):
            try:
                client.create_bucket(Bucket="mill")
                break
            except Exception:  # noqa: BLE001 - the server is still coming up
                time.sleep(0.5)
        else:
            raise RuntimeError((folder / "log").read_text()[-2000:])
        yield env
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the test bucket, with the standard AWS settings in the environment."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return "s3://mill"


def gristmill(*arguments: str, env: dict[str, str] | None = None, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run the command line as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
