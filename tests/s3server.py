"""S3 servers on loopback, each in a process of its own that can be killed, frozen and started again."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

# No word of a path or a message: secrets are masked wherever they occur.
ID, SECRET = "access-key-of-tests", "secret-key-of-tests"
KEYS = {"AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
CONFIG = f"""{{"identities": [{{"name": "test", "credentials":
 [{{"accessKey": "{ID}", "secretKey": "{SECRET}"}}], "actions": ["Admin", "Read", "Write", "List"]}}]}}"""
UP_TIMEOUT_S = 60.0


PORTS = range(20_000, 32_000)  # between those of Ray's workers and those that systems give to outgoing connections


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Different ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < number:
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.SystemRandom().choice(PORTS)))
                ports.append(probe.getsockname()[1])
        return ports


class LoopbackS3:
    """An S3 server. `env` reaches it by the standard AWS settings; `command` starts it."""

    def __init__(self, folder: Path, command: list[str], port: int) -> None:
        self.folder, self.command, self.port = folder, command, port
        self.env = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
        self.process: subprocess.Popen | None = None

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    def start(self, bucket: str = "mill") -> None:
        """Return when the bucket is there (made, if need be). Raises RuntimeError with the server's log."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        client, end = self.client(), time.monotonic() + UP_TIMEOUT_S
        while time.monotonic() < end:
            try:
                names = [b["Name"] for b in client.list_buckets()["Buckets"]]
                if bucket not in names:
                    client.create_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key=".up", Body=b"")
                return client.delete_object(Bucket=bucket, Key=".up") and None
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
        raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Connections are taken and nothing answers, until `thaw`."""
        assert self.process
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        os.kill(self.process.pid, signal.SIGCONT)


class S3Server(LoopbackS3):
    """SeaweedFS: a real store over files, with real signatures. A start over the same folder finds the same data."""

    def __init__(self, folder: Path) -> None:
        (folder / "s3.json").write_text(CONFIG)
        (folder / "data").mkdir()
        names = ("master", "volume", "filer", "s3")
        free = free_ports(2 * len(names))
        ports = dict(zip(names, free))
        grpc = {f"{name}.port.grpc": port for name, port in zip(names, free[len(names) :])}
        command = [str(Path(sys.executable).parent / "weed"), "server", "-s3", "-filer", f"-s3.config={folder}/s3.json"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}/data", "-volume.max=50"]
        command += [f"-{name}.port={port}" for name, port in ports.items()]
        command += [f"-{name}={port}" for name, port in grpc.items()]
        # Its further servers listen on fixed ports: two test runs on one machine would meet there.
        command += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        super().__init__(folder, command, ports["s3"])


class MotoServer(LoopbackS3):
    """moto: a second implementation of the protocol, in memory. It checks no signatures, and a start is empty."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        script = str(Path(__file__).parent / "moto_server.py")
        super().__init__(folder, [sys.executable, "-P", script, str(port)], port)
