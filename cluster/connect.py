"""Connects to Ray: the cluster at an address, the cluster of the enclosing Ray job, or a local Ray."""

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from gristmill.cluster.head_monitor import watching
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.errors import UserError
from gristmill.records.log_filter import make_safe
from gristmill.records.plugins import travelling_modules
from gristmill.records.shipped import FOLDERS, PACKAGE_FOLDER, SHIPPED

logger = logging.getLogger(__name__)

FLOORS = ("records", "engines", "stages", "evaluation", "generators", "cluster", "jobs")
CONNECT_TIMEOUT_S = 10.0
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

    Raises UserError when nothing answers at the address.
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
    if address:
        _check_address(address)
    for handler in logging.getLogger("ray").handlers:
        make_safe(handler)
    log_options = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            logger.info(f"connecting to Ray at {address}")
            with _shipped_code() as modules:
                env = {"env_vars": WORKER_ENV, **modules}
                ray.init(address=address, namespace="gristmill", runtime_env=env, **log_options)
        else:
            logger.info("starting a local Ray")
            _start_local({"num_cpus": spec.num_cpus, **log_options})
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"Ray at {address}" if address else "a local Ray"
        raise UserError(f"cannot reach {where}: {error}; check cluster.address, RAY_ADDRESS and `ray status`") from None
    try:
        with watching(address) if address else nullcontext():
            yield
    finally:
        ray.shutdown()


def _start_local(options: dict[str, Any]) -> None:
    """Start a Ray on this node. Raises UserError when it does not come up in the 30 s that Ray allows."""
    try:
        with _loopback(), _environment(WORKER_ENV):
            ray.init(address="local", include_dashboard=False, **options)
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray raises a bare Exception for it
            raise
        raise UserError("Ray did not start within 30 s: this node is too busy; run the same command again") from None


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """The environment of this process has these variables during the block; what starts there inherits them.

    Ray starts a worker per CPU before the first task comes, all with the environment of the node. A runtime_env of
    the job would leave them idle and start others.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _loopback() -> Iterator[None]:
    """A Ray that starts in this block listens on loopback only. On Linux the default is every interface.

    Ray reads the variable at import, and its processes inherit it. Were it left set, this process and its children
    could reach no Ray on another node, nor one of this node that listens on its address.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _check_address(address: str) -> None:
    """Raise UserError when nothing listens at "host:port"; Ray would try for minutes."""
    host, sep, port = address.removeprefix("ray://").rpartition(":")
    if not sep or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
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
