"""A Ray to run on: the cluster that an address names, the one around a Ray job, or a local one for this run."""

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray
from ray._private import ray_constants

from gristmill.cluster.head_monitor import watching
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.errors import UserError
from gristmill.records.plugins import travelling_modules
from gristmill.records.shipped import FOLDERS, PACKAGE_FOLDER, SHIPPED

logger = logging.getLogger(__name__)

FLOORS = ("records", "engines", "stages", "evaluation", "generators", "cluster", "jobs")
KNOCK_TIMEOUT_S = 10.0
WORKER_ENV = {
    # One core is one task: a thread pool inside a task would take its neighbours' cores.
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def connected(spec: ClusterSpec) -> Iterator[None]:
    """Ray for the length of the block. A local Ray is stopped at the end; a cluster is only left.

    Raises UserError when the address answers to nothing.
    """
    for module in travelling_modules():
        ray.cloudpickle.register_pickle_by_value(module)
    if ray.is_initialized():
        yield  # the caller's own Ray, in a notebook or a test
        return
    address = spec.address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # the run reports what matters, in one line
    if address:
        _knock(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            logger.info(f"connecting to Ray at {address}")
            with _shipped_code() as modules:
                env = {"env_vars": WORKER_ENV, **modules}
                ray.init(address=address, namespace="gristmill", runtime_env=env, **quiet)
        else:
            logger.info("starting a local Ray")
            _keep_to_loopback()
            ray.init(
                address="local",
                num_cpus=spec.num_cpus,
                include_dashboard=False,
                runtime_env={"env_vars": WORKER_ENV},
                **quiet,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"Ray at {address}" if address else "a local Ray"
        raise UserError(f"cannot reach {where}: {error}; check cluster.address, RAY_ADDRESS and `ray status`") from None
    try:
        with watching(address) if address else nullcontext():
            yield
    finally:
        ray.shutdown()


def _keep_to_loopback() -> None:
    """Have a local Ray listen on loopback only: on Linux it would listen on every interface otherwise.

    Ray reads the variable when it is imported, and its own processes inherit it.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _knock(address: str) -> None:
    """Raise UserError when nothing listens at "host:port"; Ray itself would try for minutes."""
    host, sep, port = address.removeprefix("ray://").rpartition(":")
    if not sep or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), KNOCK_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(f"cannot reach Ray at {address} ({error}); check cluster.address and RAY_ADDRESS") from None


@contextmanager
def _shipped_code() -> Iterator[dict[str, object]]:
    """`py_modules` with the package itself for the nodes; empty where the enclosing Ray job has shipped it already.

    A node unpacks each module into a folder of its own. So the floors of a checkout are first copied into one package.
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
