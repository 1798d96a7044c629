"""A live driver keeps its output; a dead one does not."""

import json
import logging
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gristmill.records.errors import UserError
from gristmill.records.output import lease as module
from gristmill.records.output.lease import BEAT_S, DEAD_S, NAME, SLOW_BEAT_S, Lease, dead_s
from gristmill.records.stores.opening import open_store
from gristmill.records.stores.s3 import S3Store
from tests.faults import faults, wait_until


def test_a_second_driver_on_this_host_is_refused_at_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = Lease(store)
    first.acquire()
    with pytest.raises(UserError, match="being written by another driver"):
        Lease(store).acquire()
    first.release()
    assert not store.exists(NAME)
    again = Lease(store)
    again.acquire()
    again.release()


def test_the_lease_of_a_dead_process_is_taken(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    dead = Lease(store)
    content = {**json.loads(dead._content()), "pid": 2**22 + 1, "process_start": "1"}
    store.put(NAME, json.dumps(content).encode())
    lease = Lease(store)
    lease.acquire()
    assert json.loads(store.read(NAME))["token"] == lease.token
    lease.release()


def test_a_rival_on_another_host_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "DEAD_S", 2.5)
    monkeypatch.setattr(module, "BEAT_S", 0.5)
    store = open_store(str(tmp_path))
    rival = Lease(store)
    rival._content = lambda: json.dumps(  # type: ignore[method-assign]
        {"token": rival.token, "host": "elsewhere", "pid": 1, "beat": rival._beat, "process_start": "0"}
    ).encode()
    rival.acquire()
    with pytest.raises(UserError, match="process 1 on elsewhere"):
        Lease(store).acquire()
    rival._stop.set()  # it dies without releasing
    assert rival._thread
    rival._thread.join()
    lease = Lease(store)
    lease.acquire()
    assert "watching" in caplog.messages[0]
    lease.release()


def test_a_driver_that_lost_its_lease_learns_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.1)
    store = open_store(str(tmp_path))
    lease = Lease(store)
    lease.acquire()
    store.put(NAME, json.dumps({"token": "other", "host": "h", "pid": 7}).encode())
    assert lease._thread
    lease._thread.join(5)
    assert lease.lost == "process 7 on h"
    lease.release()
    assert store.exists(NAME)  # it is not ours to delete


def test_a_store_in_trouble_neither_ends_nor_loses_the_lease(
    s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.3)
    monkeypatch.setattr(module, "RELEASE_S", 4.0)
    with faults(int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        for name, value in proxy.env(s3_server).items():
            monkeypatch.setenv(name, value)
        store = S3Store(f"s3://mill/lease-{tmp_path.name}", patience_s=60.0)
        lease = Lease(store)
        proxy.script = ["reset_after"]  # its own put met again is no rival
        lease.acquire()
        for kind, counted in (("slow_down", "503"), ("reset_before", "connection"), ("expired", "400")):
            proxy.always, before = kind, store.errors[counted]
            wait_until(f"failures by {kind}", lambda: store.errors[counted] > before + 3)  # noqa: B023
            proxy.always, beat = None, lease._beat
            wait_until("the next beat", lambda: lease._beat > beat + 1)  # noqa: B023
            assert lease.lost is None and lease._thread and lease._thread.is_alive()
        proxy.always = "freeze"
        wait_until("a frozen request", lambda: proxy.seen["freeze"] > 0)
        began = time.monotonic()
        lease.release()
        assert time.monotonic() - began < 6
    with faults(int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        successor = Lease(S3Store(store.uri))
        held = json.loads(successor.store.read(NAME))
        successor.store.put(NAME, json.dumps({**held, "pid": 2**22 + 1, "process_start": "1"}).encode())  # it has ended
        successor.acquire()
        successor.release()
        assert not successor.store.exists(NAME)
        proxy.always = "slow_down"
        Lease(S3Store(store.uri)).release()  # of a run that ends by the store's fault: raises nothing over it


def test_a_bucket_with_versions_keeps_one_of_the_lease(
    s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the keys may not delete versions, the lease says that it is renewed at a slower pace, and a newcomer waits
    for as many beats."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "BEAT_S", 0.1)
    monkeypatch.setattr(module, "DEAD_S", 1.0)
    monkeypatch.setattr(module, "SLOW_BEAT_S", 0.4)
    with faults(int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        for name, value in proxy.env(s3_server).items():
            monkeypatch.setenv(name, value)
        store = S3Store(f"s3://versions/lease-{tmp_path.name}", patience_s=20.0)
        with suppress(store.client.exceptions.BucketAlreadyOwnedByYou, store.client.exceptions.BucketAlreadyExists):
            store.client.create_bucket(Bucket=store.bucket)
        store.client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})

        def num_versions() -> int:
            listed = store.client.list_object_versions(Bucket=store.bucket, Prefix=store.prefix)
            return len(listed.get("Versions", []))

        lease = Lease(store)
        lease.acquire()
        wait_until("ten beats", lambda: lease._beat >= 10)
        assert num_versions() <= 2 and json.loads(store.read(NAME))["beat_s"] == 0.1
        lease.release()
        assert num_versions() == 0 and not store.exists(NAME)
        proxy.refused = (b"versionId=",)
        locked = Lease(S3Store(store.uri, patience_s=20.0))
        locked.acquire()
        wait_until("a slower pace", lambda: json.loads(store.read(NAME))["beat_s"] == 0.4)
        assert dead_s(json.loads(store.read(NAME))) == pytest.approx(4.0)
        beat, before = locked._beat, num_versions()
        wait_until("three beats", lambda: locked._beat >= beat + 3)
        assert num_versions() - before <= 4 and locked.lost is None
        assert "the keys may not delete them" in caplog.text
        locked.release()


def test_the_pace_of_a_damaged_lease_is_bounded() -> None:
    assert dead_s({}) == DEAD_S  # of 0.2
    assert dead_s({"beat_s": 1e300}) == DEAD_S * SLOW_BEAT_S / BEAT_S == 120.0
    assert dead_s({"beat_s": -1}) == dead_s({"beat_s": 0}) == DEAD_S
