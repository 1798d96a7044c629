"""Connects to Ray: the cluster at an address, the cluster of the enclosing Ray job, or a local Ray."""

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from gristmill.cluster.driver.auth_token import REMEDY, check_token
from gristmill.cluster.driver.head_monitor import watching
from gristmill.cluster.driver.interrupts import deferred_interrupts, raise_if, shut_down
from gristmill.cluster.driver.local_ray import local_ray
from gristmill.cluster.errors import one_line
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.errors import UserError
from gristmill.records.log_filter import make_safe
from gristmill.records.plugins import travelling_modules
from gristmill.records.shipped import FOLDERS, PACKAGE_FOLDER, SHIPPED

logger = logging.getLogger(__name__)

FLOORS = ("records", "engines", "stages", "evaluation", "generators", "cluster", "jobs")
CONNECT_TIMEOUT_S = 10.0
LOG_OPTIONS: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
WORKER_ENV = {
    # Ray gives a task one core: a thread pool in a task would use the cores of other tasks.
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def connected(spec: ClusterSpec) -> Iterator[None]:
    """Connect to Ray during the block. At the end a local Ray is stopped; from a cluster the driver disconnects.

    Raises UserError when nothing answers at the address, and when a local Ray does not start.
    """
    for module in travelling_modules():
        ray.cloudpickle.register_pickle_by_value(module)
    if ray.is_initialized():
        yield  # the Ray of a notebook or a test
        return
    address = spec.address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # the run reports errors itself, in one line
    for handler in logging.getLogger("ray").handlers:
        make_safe(handler)
    with ExitStack() as stack:
        try:
            if address and address != "local":
                check_address(address)
                check_token(address)
                logger.info(f"connecting to Ray at {address}")
                stack.enter_context(_cluster(address))
            else:
                logger.info("starting a local Ray")
                stack.enter_context(local_ray(WORKER_ENV, {"num_cpus": spec.num_cpus, **LOG_OPTIONS}))
        except (OSError, ValueError, RuntimeError, AssertionError, RayError) as error:
            if not address:
                raise UserError(
                    f"cannot start a local Ray: {one_line(error)}; run the same command again, or start a Ray by "
                    f"`ray start --head` and set RAY_ADDRESS=auto"
                ) from None
            remedy = "check cluster.address, RAY_ADDRESS and `ray status`"
            if isinstance(error, AuthenticationError):
                remedy = REMEDY
            raise UserError(f"cannot reach Ray at {address}: {one_line(error)}; {remedy}") from None
        yield


@contextmanager
def on_cluster(spec: ClusterSpec) -> Iterator[None]:
    """`connected`, to a cluster that is there. Raises UserError when no address names one."""
    address = spec.address or os.environ.get("RAY_ADDRESS")
    if not ray.is_initialized() and (not address or address == "local"):
        raise UserError("no cluster: set --address or RAY_ADDRESS, e.g. to auto on a node of the cluster")
    with connected(spec):
        yield


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """A connection to the cluster at `address`, watched during the block."""
    with deferred_interrupts(_nothing) as interruption, _shipped_code() as modules:
        env = {"env_vars": WORKER_ENV, **modules}
        ray.init(address=address, namespace="gristmill", runtime_env=env, **LOG_OPTIONS)
        if interruption.is_set():
            ray.shutdown()
    raise_if(interruption)
    try:
        with watching(address):
            yield
    finally:
        shut_down(_nothing)


def _nothing() -> None:
    """A cluster goes on without this driver."""


def check_address(address: str) -> None:
    """Raise UserError for an address of another kind, and when nothing listens at "host:port".

    Ray would try for minutes, or fail with a traceback.
    """
    scheme, sep, _ = address.partition("://")
    if sep and scheme == "ray":
        raise UserError(
            f"cannot reach Ray at {address}: addresses of Ray clients (ray://) are not supported; run on a node of the "
            f"cluster with RAY_ADDRESS=auto, or use `ray job submit`"
        )
    if sep and scheme in ("http", "https"):
        raise UserError(
            f"cannot reach Ray at {address}: this is the address of the dashboard, which `ray job submit --address` "
            f"takes; unset RAY_ADDRESS for a local Ray, or set it to auto or host:6379 on a node of the cluster"
        )
    if sep:
        raise UserError(f"cannot reach Ray at {address}: write host:6379, or auto on a node of the cluster")
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not host:
        if address == "auto":
            return
        raise UserError(f"cannot reach Ray at {address}: write host:6379, or auto on a node of the cluster")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:  # ValueError: the host is no name; OverflowError: the port
        raise UserError(f"cannot reach Ray at {address} ({error}); check cluster.address and RAY_ADDRESS") from None


@contextmanager
def _shipped_code() -> Iterator[dict[str, object]]:
    """`py_modules` with the package for the nodes; empty if the enclosing Ray job has shipped it.

    A node unpacks each module into a separate folder, so the floors of a checkout are first copied into one package.
    """
    if os.environ.get("RAY_JOB_ID") or os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="gristmill-code-") as folder:
        package = Path(folder, "gristmill")
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE_FOLDER, package, ignore=ignore)
        for name in FLOORS + FOLDERS:
            shutil.copytree(SHIPPED / name, package / name, ignore=ignore, dirs_exist_ok=True)
        yield {"py_modules": [str(package)]}
