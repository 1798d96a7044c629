"""Many small objects of a bucket are read through obstore; what it does not get, boto3 gets or reports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.records.errors import UserError
from gristmill.records.stores import s3_bulk
from gristmill.records.stores.s3 import S3Store
from tests.certificates import certificates
from tests.faults import KINDS, FaultProxy, faults

DATA = bytes(range(256)) * 40


@pytest.fixture(params=["http", "https"])
def secured(
    request: pytest.FixtureRequest, s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A proxy before the server; over https, an authority of our own has signed its certificate."""
    bundle, server = certificates(tmp_path)
    port = int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2])
    with faults(port, tls=server if request.param == "https" else None) as proxy:
        for name, value in {**proxy.env(s3_server), "AWS_CA_BUNDLE": bundle}.items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture
def store(secured: FaultProxy, tmp_path: Path) -> S3Store:
    store = S3Store(f"s3://mill/bulk-{tmp_path.name}", patience_s=10.0)
    store.put("a", DATA)
    return store


def test_boto3_is_not_asked_for_what_is_there(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Store, "read", lambda *_: pytest.fail("boto3 was asked"))
    assert store.read_small("a") == DATA


def test_what_is_absent_or_refused_is_the_error_of_a_read(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        store.read_small("absent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="cannot reach"):
        S3Store("s3://mill/bulk", patience_s=0.1).read_small("a")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("freeze")])
def test_it_survives_each_fault(kind: str, store: S3Store, secured: FaultProxy) -> None:
    secured.script = [kind]
    assert store.read_small("a") == DATA
    assert not secured.script


def test_what_always_fails_is_not_tried_for_ever(store: S3Store, secured: FaultProxy) -> None:
    secured.script = ["reset_before", "ok"] * s3_bulk.MAX_FAILURES  # obstore fails, and boto3 does not
    for _ in range(s3_bulk.MAX_FAILURES + 1):
        assert store.read_small("a") == DATA
    assert not secured.script and not store.errors, "the last went to boto3 alone"
    secured.script = ["reset_before"]
    assert store.read_small("a") == DATA and store.errors["connection"] == 1
