"""A real Ray cluster on this machine: each node is a `ray start` with its own address, folder and processes."""

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.s3server import free_port

UP = "Ray runtime started."
UP_TIMEOUT_S = 240.0
GONE_TIMEOUT_S = 30.0
STARTS = 4  # of a node
HEAD_CPUS, NODE_CPUS = 1, 3
OBJECT_STORE_BYTES = 150_000_000
MARK = "GRISTMILL_CHAOS"  # in the environment of all that a cluster starts


def kill_tree(root: psutil.Process) -> None:
    """SIGKILL a process and all below it; they are stopped first, so that none starts another meanwhile.

    Raises RuntimeError when one of them is not gone after that.
    """
    stopped: dict[int, psutil.Process] = {}
    while found := [p for p in _tree(root) if p.pid not in stopped]:
        for process in found:
            stopped[process.pid] = process
            try:
                process.suspend()
            except psutil.NoSuchProcess:
                continue
    for process in stopped.values():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    end = time.monotonic() + GONE_TIMEOUT_S
    while left := [p for p in stopped.values() if _lives(p)]:
        if time.monotonic() > end:
            raise RuntimeError(f"not dead after SIGKILL: {left}")
        time.sleep(0.05)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def title(process: psutil.Process) -> str:
    """What Ray has named a worker process; empty when it is gone."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return words[0] if words else ""


class Node:
    """`ray start --block`: the raylet, its agents and its workers are all below that one process."""

    def __init__(self, name: str, arguments: list[str], folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", *arguments]
        command += [f"--temp-dir={folder / name}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        command += ["--include-log-monitor=false", "--disable-usage-stats"]
        with open(self.log, "wb") as log:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self.root = psutil.Process(self._popen.pid)

    def wait(self) -> None:
        """Return when the node is up. Raises RuntimeError with its log."""
        end = time.monotonic() + UP_TIMEOUT_S
        while UP not in (text := self.log.read_text(errors="replace")):
            if self._popen.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Ray node {self.name} did not come up: {text[-2000:]}")
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        return _tree(self.root)[1:]

    def kill(self) -> None:
        """All of the node at once, as when its power fails."""
        kill_tree(self.root)
        self._popen.wait()


class Nodes:
    """A head of one CPU and worker nodes. `env` is what a driver needs to reach it."""

    def __init__(self, folder: Path, reconnect_s: int | None = None) -> None:
        self.folder = folder  # short, since Ray keeps sockets below it
        self.head: Node | None = None
        self.workers: list[Node] = []
        self._num_started = 0
        self._counting = threading.Lock()
        self._port = 0
        # A token of our own: no other driver on this machine can meet this cluster by mistake.
        self._common = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._common[MARK] = secrets.token_hex(8)
        self._common |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        if reconnect_s is not None:
            self._common["RAY_gcs_rpc_server_reconnect_timeout_s"] = str(reconnect_s)
        self._common["RAY_worker_niceness"] = "0"  # Ray's default of 15 starves its workers beside other tests

    @property
    def env(self) -> dict[str, str]:
        return {**self._common, "RAY_ADDRESS": f"127.0.0.1:{self._port}"}

    def start(self, num_workers: int) -> None:
        """Return when the head and all workers are up. Raises RuntimeError with the log of one that is not."""
        assert self.head is None and not self.workers
        self._port = free_port()
        arguments = ["--head", f"--port={self._port}", "--node-ip-address=127.0.0.1", f"--num-cpus={HEAD_CPUS}"]
        arguments += ["--include-dashboard=false", f"--ray-client-server-port={free_port()}"]
        self.head = self._up(lambda: self._node("head", arguments))
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            list(pool.map(lambda _: self.add(), range(num_workers)))

    def add(self) -> Node:
        """A new node, with an address that no node had before, joins."""
        worker = self._up(self._worker)
        self.workers.append(worker)
        return worker

    def _up(self, start: Callable[[], Node]) -> Node:
        """A node that is up. Ray gives a node 30 s to come up, which is not enough on a busy machine."""
        for attempt in range(STARTS):
            node = start()
            try:
                node.wait()
                break
            except RuntimeError:
                node.kill()
                if attempt == STARTS - 1:
                    raise
        return node

    def _worker(self) -> Node:
        return self._node("node", [f"--address=127.0.0.1:{self._port}", f"--num-cpus={NODE_CPUS}"])

    def _node(self, kind: str, arguments: list[str]) -> Node:
        with self._counting:
            self._num_started += 1
            number = self._num_started
        if kind == "node":
            arguments = [*arguments, f"--node-ip-address=127.{1 + number // 250}.0.{1 + number % 250}"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return Node(f"{kind}{number}", arguments, self.folder, {**env, **self._common})

    def remove(self, node: Node) -> None:
        self.workers.remove(node)
        node.kill()

    def kill_head(self) -> None:
        """The head with its GCS; the worker nodes live on without it."""
        assert self.head
        self.head.kill()
        self.head = None

    def stop(self) -> None:
        for node in [*self.workers, self.head]:
            if node is not None:
                node.kill()
        self.head, self.workers = None, []

    def titled(self, *starts: str) -> list[tuple[str, psutil.Process]]:
        """Ray's worker processes on any node whose title starts so, with the node's name, by pid."""
        nodes = [node for node in [self.head, *self.workers] if node]
        found = [(node.name, p) for node in nodes for p in node.processes() if starts and title(p).startswith(starts)]
        return sorted(found, key=lambda one: one[1].pid)

    def set_free(self, *starts: str) -> list[tuple[str, psutil.Process]]:
        """Processes whose title starts so and that came from any node of this cluster, wherever they hang now."""
        found = []
        for process in psutil.process_iter():
            try:
                if title(process).startswith(starts) and process.environ().get(MARK) == self._common[MARK]:
                    found.append(("no node", process))
            except psutil.Error:
                continue
        return found


def leftovers(nodes: Nodes, patience_s: float) -> list[str]:
    """Engines and index actors that still live after the run has ended, on the cluster or set free by a kill."""
    end = time.monotonic() + patience_s
    while found := nodes.titled("ray::Replica", "ray::BandShard") + nodes.set_free("VLLM"):
        if time.monotonic() > end:
            return [f"{title(process)} on {where}" for where, process in found]
        time.sleep(0.5)
    return []
