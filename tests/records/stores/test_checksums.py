"""Over https, the SDKs send checksums after the body of a put, which many stores other than AWS refuse."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.records.errors import Conflict, UserError
from gristmill.records.stores import s3_parts, s3_puts
from gristmill.records.stores.s3 import S3Store
from gristmill.records.stores.s3_client import CHECKSUMS, connect, is_aws
from tests.certificates import certificates
from tests.faults import FaultProxy, faults, wait_until
from tests.s3server import KEYS

VARIABLES = [f"AWS_{key.upper()}" for key in CHECKSUMS]
MIB = 1 << 20


@pytest.fixture
def strict(s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A store behind https whose certificate an authority of our own has signed; it refuses trailers."""
    bundle, server = certificates(tmp_path)
    with faults(int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2]), tls=server) as proxy:
        proxy.refuses_trailers = True
        for name, value in {**proxy.env(s3_server), "AWS_CA_BUNDLE": bundle}.items():
            monkeypatch.setenv(name, value)
        for name in VARIABLES:
            monkeypatch.setenv(name, "")  # so that what the code sets is restored
            monkeypatch.delenv(name)
        yield proxy


@pytest.fixture
def store(strict: FaultProxy, tmp_path: Path) -> S3Store:
    return S3Store(f"s3://mill/tls-{tmp_path.name}", patience_s=90.0)


def test_a_store_that_refuses_trailers_is_written_and_read(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.check(write=True)
    for size in (10, 3 * MIB):
        store.put(f"a{size}", bytes(size))
        store.put(f"b{size}", bytes(size), if_absent=True)
        with pytest.raises(Conflict):
            store.put(f"b{size}", bytes(size), if_absent=True)
        assert store.read(f"a{size}") == store.read(f"b{size}") == bytes(size)
    held = store.begin_put("held", bytes(3 * MIB))
    held.complete()
    store.renew("lease.json", b"1")
    monkeypatch.setattr(s3_puts, "ONE_PUT_BYTES", 6 * MIB)
    monkeypatch.setattr(s3_parts, "PART_BYTES", 5 * MIB)
    store.put("parts", bytes(range(256)) * (40 << 10))
    assert store.read("parts") == bytes(range(256)) * (40 << 10)
    store.delete("parts")
    assert [e.name for e in store.list()] == ["a10", "a3145728", "b10", "b3145728", "held", "lease.json"]
    assert store.errors.total() == 0


def test_arrow_writes_and_reads_there_too(store: S3Store) -> None:
    filesystem, path = store.filesystem()
    with filesystem.open_output_stream(f"{path}/arrow") as sink:
        sink.write(b"x" * (6 * MIB))
    with filesystem.open_input_file(f"{path}/arrow") as file:
        assert file.read() == b"x" * (6 * MIB)
    assert store.read("arrow") == b"x" * (6 * MIB)


@pytest.mark.parametrize("setting", ["variable", "profile"])
def test_the_user_may_ask_for_checksums(
    setting: str, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that is what this server refuses."""
    if setting == "variable":
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    else:
        (tmp_path / "config").write_text("[default]\nrequest_checksum_calculation = when_supported\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(UserError, match="501"):
        store.put("a", b"1")


def test_an_unknown_certificate_is_named(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(UserError, match="is not trusted; see AWS_CA_BUNDLE"):
        store.put("a", b"1")


def test_aws_keeps_its_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for endpoint, calculation in {
        "": "when_supported",
        "https://bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com": "when_supported",
        "https://storage.googleapis.com": "when_required",
        "https://amazonaws.com.example.org": "when_required",
    }.items():
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint) if endpoint else monkeypatch.delenv("AWS_ENDPOINT_URL", False)
        client = connect("s3://bucket", 1.0)
        assert client.meta.config.request_checksum_calculation == calculation, endpoint
        assert is_aws(client.meta.endpoint_url) == (calculation == "when_supported")


def test_a_put_with_a_trailer_can_be_held_too(
    store: S3Store, strict: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on AWS: the checksum follows the last byte."""
    strict.refuses_trailers = False
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    put = store.begin_put("held", bytes(range(256)) * 10_000)
    assert isinstance(put, s3_puts.HeldPut)
    sender = threading.Thread(target=put.send)
    sender.start()
    wait_until("bytes sent", lambda: any(b.is_sending and b.tell() == len(b) - 1 for b in put._bodies))
    put.complete()
    sender.join(30)
    assert store.read("held") == bytes(range(256)) * 10_000 and store.errors.total() == 0
    assert len(put._bodies) == 1  # it was sent once
