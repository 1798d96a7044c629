"""The tests of S3 run against two servers of different make, so that they test the protocol and no server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store
from gristmill.records.stores.retry import VARIABLE
from gristmill.records.stores.s3 import S3Store
from tests import session
from tests.cloud_servers import Azurite, environment
from tests.faults import FaultProxy, faults


@pytest.fixture(scope="session", params=list(session.S3_SERVERS))
def s3_server(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment that reaches the server."""
    return session.S3_SERVERS[request.param]().env


@pytest.fixture(params=["local", *session.S3_SERVERS, "azurite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return open_store(str(tmp_path / "out"))
    if request.param == "azurite":
        environment(session.cloud_server(Azurite), monkeypatch)
        return open_store(f"az://mill/store-{tmp_path.name}")
    for name, value in session.S3_SERVERS[request.param]().env.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://mill/store-{tmp_path.name}")


@pytest.fixture
def proxy(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the server; the environment leads to it, with a patience of 30 s."""
    with faults(int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        for name, value in proxy.env(s3_server).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(VARIABLE, "30")
        yield proxy


@pytest.fixture
def remote(proxy: FaultProxy, tmp_path: Path) -> S3Store:
    """A store behind the proxy."""
    return S3Store(f"s3://mill/faults-{tmp_path.name}")
