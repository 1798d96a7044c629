"""A local Ray with a place of its own: its folder, its token, its start and its end.

Ray's defaults leave traces that other programs of the user pick up: a token in ~/.ray, which the Ray tools then send to
clusters, and the address of the local Ray in /tmp/ray, which `address="auto"` then finds.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_generator import generate_new_authentication_token
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from gristmill.cluster.driver.interrupts import deferred_interrupts, raise_if, shut_down
from gristmill.records.errors import UserError
from gristmill.records.processes import is_dead, this_process

PREFIX, OWNER, TOKEN = "gm-ray-", "owner", "auth_token"
TEMP = "r"  # Ray opens its folder to every user, so it lies in one that is not
# A socket's path has at most 107 characters. Ray adds "/r/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store.N".
MOST_PATH_CHARS = 107 - 70
TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")


_private: list[Path] = []  # the folder of the Ray of this process, if it has started one


def is_private() -> bool:
    """Whether Ray was started by this process, with a token of its own: no other program can reach it."""
    return bool(_private)


@contextmanager
def local_ray(variables: Mapping[str, str], options: dict[str, Any]) -> Iterator[None]:
    """A Ray on this node during the block, which listens on loopback only. Nothing of it is left behind.

    `variables` are the environment of its processes; `options` go to `ray.init`. Raises the errors of `ray.init`, and
    UserError when it does not come up in the 30 s that Ray allows.
    """
    _sweep()
    with ExitStack() as stack:
        before = {child.pid for child in _children()}

        def end_at_once() -> None:
            _kill(before)
            shutil.rmtree(folder, ignore_errors=True)

        folder = stack.enter_context(_own_folder())
        stack.enter_context(_own_token(folder / TOKEN))
        with deferred_interrupts(end_at_once) as interruption:
            try:
                with _loopback(), environment(variables):
                    ray.init(address="local", include_dashboard=False, _temp_dir=str(folder / TEMP), **options)
            except BaseException as error:
                ray.shutdown()
                _kill(before)  # a Ray that has not come up is unknown to its shutdown
                # Ray raises a bare Exception for it.
                if "timed out during startup" in str(error):
                    raise UserError(
                        "Ray did not start within 30 s: this node is too busy; run the same command again"
                    ) from None
                raise
            if interruption.is_set():
                ray.shutdown()
        raise_if(interruption)
        _private.append(folder)
        try:
            yield
        finally:
            _private.clear()
            shut_down(end_at_once)


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """The environment of this process has these variables (None: lacks it) during the block; children inherit them.

    Ray starts a worker per CPU before the first task comes, all with the environment of the node. A runtime_env of
    the job would leave them idle and start others.
    """
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
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
        with environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for Ray's sockets, logs and spilled objects, readable by this user only; removed after the block."""
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(base) + 1 + len(PREFIX) + 8 > MOST_PATH_CHARS:
        base = "/tmp"
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    except OSError as error:
        raise UserError(f"{base}: no folder for a local Ray can be made ({error.strerror}); set RAY_TMPDIR") from None
    try:
        (folder / OWNER).write_text(this_process())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_token(path: Path) -> Iterator[None]:
    """Ray's token is in the file `path` during the block, whatever the user has configured for clusters."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(generate_new_authentication_token())
    settings = dict(zip(TOKEN_VARIABLES, ("token", str(path), None)))
    try:
        with environment(settings):
            _read_token_settings()
            yield
    finally:
        _read_token_settings()


def _read_token_settings() -> None:
    """Ray caches mode and token; read both again."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _sweep() -> None:
    """Remove the folders of killed processes of this user."""
    base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    for folder in {*base.glob(f"{PREFIX}*"), *Path("/tmp").glob(f"{PREFIX}*")}:
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and is_dead((folder / OWNER).read_text()):
                shutil.rmtree(folder, ignore_errors=True)


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _kill(before: set[int]) -> None:
    """Kill the processes that this process has started since it had those of `before`."""
    for child in _children():
        if child.pid not in before:
            with suppress(psutil.NoSuchProcess):
                child.kill()
