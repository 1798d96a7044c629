"""What a session of tests shares: the command line in this process, one Ray for all its runs, and one S3 server."""

import contextlib
import gc
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from unittest import mock

from gristmill.engines.guard import MARK
from gristmill.jobs import first_use
from gristmill.records.errors import UserError
from tests.cloud_servers import CloudServer
from tests.s3server import LoopbackS3, MotoServer, S3Server

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from gristmill.cluster.spec import ClusterSpec

ROOT = Path(__file__).parent.parent
ON_RAY = {"produce", "fit", "audit-privacy", "study", "pack", "tune", "flow"}
NUM_CPUS = 4  # logical: recipes that ask for more engines than that are tested for being refused
LASTING_ACTORS = {"RunQueueActor"}  # stay for as long as their Ray
STARTS = 3  # of the Ray of the session
REST_TIMEOUT_S = 60.0
PATIENCE_S = 500.0  # until what a test waits for must have come, however busy the machine: below the limit of a test

S = TypeVar("S", bound=LoopbackS3)
C = TypeVar("C", bound=CloudServer)

_owned = contextlib.ExitStack()  # what is ended with the session
_server: list[S3Server] = []
_moto: list[MotoServer] = []
_clouds: dict[type[CloudServer], CloudServer] = {}


def new_folder(name: str) -> Path:
    """A folder that is removed at the end of the session."""
    return Path(_owned.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True)))


def s3_server() -> S3Server:
    """The S3 server of the session, started by its first user."""
    return _started(_server, S3Server)


def moto_server() -> MotoServer:
    """A second S3 server of another make, for tests of the protocol, started by its first user."""
    return _started(_moto, MotoServer)


def cloud_server(kind: type[C]) -> C:
    """The emulator of this kind, started by its first user. Skips the test where it is not installed."""
    if kind not in _clouds:
        server = kind(new_folder("cloud"))
        with _unmarked():
            server.start()
        _clouds[kind] = server
        _owned.callback(server.kill)
    return _clouds[kind]  # type: ignore[return-value]


S3_SERVERS = {"seaweedfs": s3_server, "moto": moto_server}


def _started(servers: list[S], make: Callable[[Path], S]) -> S:
    if not servers:
        server = make(new_folder("s3"))
        with _unmarked():
            server.start()
        servers.append(server)
        _owned.callback(server.kill)
    return servers[0]


def start_ray() -> None:
    """A Ray in this process, unless there is one. Its workers reach the S3 server of the session."""
    import ray

    from gristmill.cluster.connect import connected
    from gristmill.cluster.spec import ClusterSpec

    if not ray.is_initialized():
        first_use.compile_kernels()
        with _unmarked(s3_server().env):
            os.environ.pop("RAY_ADDRESS", None)
            _owned.enter_context(_up(connected, ClusterSpec(num_cpus=NUM_CPUS)))


@contextlib.contextmanager
def _up(connected: Callable, spec: "ClusterSpec") -> Iterator[None]:
    """A connection that a busy machine may refuse at first: Ray allows itself 30 s to start."""
    with contextlib.ExitStack() as stack:
        for attempt in range(STARTS):
            try:
                stack.enter_context(connected(spec))
                break
            except UserError:
                if attempt == STARTS - 1:
                    raise
        yield


def _unmarked(env: dict[str, str] | None = None) -> "mock._patch_dict":
    """An environment in which processes may be started that outlive an engine of this process: its guard kills those
    that bear its mark."""
    variables = {name: value for name, value in os.environ.items() if name != MARK}
    return mock.patch.dict(os.environ, {**variables, **(env or {})}, clear=True)


def stop_ray() -> None:
    """End the Ray of the session, for a test that connects this process to another. The next run starts a new Ray."""
    import ray

    ray.shutdown()


@contextlib.contextmanager
def ray_cluster(num_cpus: int) -> "Iterator[Cluster]":
    """A Ray cluster whose head has `num_cpus` CPUs, for processes of their own.

    The Ray of this process ends first: the head would take its address, loopback, and drivers elsewhere look for the
    address of the host.
    """
    from ray.cluster_utils import Cluster

    stop_ray()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": num_cpus, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def end() -> None:
    """End everything that the session has started."""
    _owned.close()
    _server.clear()
    _moto.clear()
    _clouds.clear()


def gristmill(
    *arguments: str, env: dict[str, str] | None = None, timeout: float = PATIENCE_S, own_process: bool = False
) -> subprocess.CompletedProcess:
    """Run the command line, in this process and on the Ray of the session wherever that shows the same.

    A process of its own takes 5 to 15 s more. It is for `own_process`, for a run on Ray with an `env` of its own (the
    workers of the session have theirs already) and for callers outside the main thread (signal handlers).
    """
    is_on_ray = bool({*arguments[:1]} & ON_RAY) and "--dry-run" not in arguments
    is_apart = own_process or threading.current_thread() is not threading.main_thread()
    if is_apart or (env and (is_on_ray or any(name.startswith("RAY_") for name in env))) or _is_elsewhere(is_on_ray):
        command = [sys.executable, "-m", "gristmill", *arguments]
        variables = {**os.environ, **(env or {})}
        return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout)
    if is_on_ray:
        start_ray()
    with mock.patch.dict(os.environ, env or {}), contextlib.chdir(ROOT):
        done = _call(arguments)
    if is_on_ray:
        assert_at_rest()
    return done


def _is_elsewhere(is_on_ray: bool) -> bool:
    """Whether the environment names another store or another Ray than the workers of the session know."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return is_on_ray and ("RAY_ADDRESS" in os.environ or (endpoint is not None and endpoint != _endpoint()))


def _endpoint() -> str | None:
    return _server[0].env["AWS_ENDPOINT_URL"] if _server else None


def _call(arguments: tuple[str, ...]) -> subprocess.CompletedProcess:
    from gristmill.jobs.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except Exception:  # noqa: BLE001  as the interpreter ends a process
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def assert_at_rest() -> None:
    """A run that has ended leaves no actor behind on a Ray that goes on."""
    from ray._private import state

    end = time.monotonic() + REST_TIMEOUT_S
    while left := [a["ActorClassName"] for a in state.actors().values() if a["State"] != "DEAD"]:
        if not set(left) - LASTING_ACTORS:
            return
        if time.monotonic() > end:
            stop_ray()  # it fails this test alone
            raise AssertionError(f"left behind on Ray: {left}")
        gc.collect()
        time.sleep(0.02)
