"""Fixtures: a real S3 server, a local Ray; hypothesis profiles; which tests share a worker of pytest-xdist."""

import faulthandler
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests import profiles, session
from tests.engine import SharedEngine
from tests.session import ROOT, gristmill

__all__ = ["ROOT", "gristmill", "profiles"]

STUCK_S = 180  # beyond the limit of a test
STDERR = pytest.StashKey[int]()  # a descriptor that pytest does not capture
LONGEST = ("tests/chaos/", "tests/cluster/", "tests/jobs/")

# A shell ignores SIGINT in what it starts in the background, and the runs that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("GRISTMILL_DEBUG", "1")  # a bug shows itself as a traceback
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # the hub of tests has the protocol of LFS alone
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default of 15 starves its workers beside other tests
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)


def pytest_itemcollected(item: pytest.Item) -> None:
    """The tests of a file go to one worker, since they share fixtures. So do all that start engines: they share one,
    and two workers with engines would want more memory than a small machine has.

    xdist reads the groups before this file could sort the items, so they are given as each item is collected.
    """
    group = "engine" if item.get_closest_marker("vllm") else item.nodeid.partition("::")[0]
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End a process that the limit of a test cannot stop, with the stacks of all its threads.

    The limit is a signal. Python handles it between two instructions, so a call of Ray that never returns, or a
    teardown that waits after the limit has struck, would hold up the session until its machine is taken away.
    """
    marker = item.get_closest_marker("timeout")
    _end_after((marker.args[0] if marker else item.config.getoption("timeout")) + STUCK_S, item.config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_after(limit_s: float, config: pytest.Config) -> None:
    faulthandler.dump_traceback_later(limit_s, exit=True, file=config.stash[STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Captured output with half a character cannot be sent by the worker of xdist, which would end the session."""
    report: Any = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first."""
    items.sort(key=lambda item: (_rank(item), bool(item.get_closest_marker("kills_engine"))))


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("vllm"):
        return 0
    return next((n for n, folder in enumerate(LONGEST, 1) if item.nodeid.startswith(folder)), len(LONGEST) + 1)


@pytest.fixture(scope="session", autouse=True)
def shared(pytestconfig: pytest.Config) -> Iterator[None]:
    """Ends the Ray and the servers that the session has started."""
    yield
    _end_after(STUCK_S, pytestconfig)
    session.end()


@pytest.fixture(scope="session")
def s3_server() -> dict[str, str]:
    """A real SeaweedFS S3 server on loopback: the environment that reaches it."""
    return session.s3_server().env


@pytest.fixture
def s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the test bucket, with the standard AWS settings in the environment."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return "s3://mill"


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[SharedEngine]:
    """The real engine, one for all tests that ask for it."""
    shared = SharedEngine()
    yield shared
    shared.close()
    shared.loop.close()


@pytest.fixture(scope="session")
def ray_session() -> None:
    """The Ray of the session, in this process: 4 CPUs."""
    session.start_ray()
