"""vLLM's own OpenAI server with the small model, on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from gristmill.engines.installed import environment
from gristmill.engines.models import resolve

NAME = "SmolLM2-135M-Instruct"
CONTEXT = 1024
START_S = 300.0


class VllmServer:
    """A context manager: the server runs inside the block at `url`."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}/v1", log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "VllmServer":
        arguments = [
            *("--model", resolve("package:smollm2"), "--served-model-name", NAME, "--max-model-len", str(CONTEXT)),
            *("--host", "127.0.0.1", "--port", str(self.port), "--max-num-seqs", "32", "--enforce-eager"),
            *("--no-enable-chunked-prefill", "--worker-extension-cls", "gristmill.engines.cpu.Worker"),
            *("--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}'),
        ]
        env = {**os.environ, **environment(kv_cache_gb=1, threads=1, batch_invariant=True)}
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while True:
            assert self._process is not None and self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
