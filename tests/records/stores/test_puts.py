"""Puts that wait for their turn, puts in parts, and puts of the same object again and again."""

import logging
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gristmill.cluster.lots.commit import Committer
from gristmill.records.errors import Conflict, UserError
from gristmill.records.output.shards import Encoded, Summary
from gristmill.records.stores import held_put, s3_parts, s3_puts
from gristmill.records.stores.contract import PendingPut, Store
from gristmill.records.stores.opening import open_store
from gristmill.records.stores.s3 import S3Store
from tests.conftest import ROOT
from tests.faults import FaultProxy, wait_until

SEAWEEDFS = pytest.mark.parametrize("s3_server", ["seaweedfs"], indirect=True)
MOTO = pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
MIB = 1 << 20
MINE, THEIRS = b"mine" * 100_000, b"their" * 100_000


class Sender:
    """A put that is sent in a thread; `wait` returns when all but its last byte is on its way."""

    def __init__(self, store: Store, name: str, data: bytes) -> None:
        self.put = store.begin_put(name, data)
        assert isinstance(self.put, s3_puts.HeldPut)
        self._bodies = self.put._bodies
        self._thread = threading.Thread(target=self.put.send, daemon=True)
        self._thread.start()

    def wait(self) -> PendingPut:
        wait_until("bytes sent", lambda: any(b.is_sending and b.tell() == len(b) - 1 for b in self._bodies))
        return self.put

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@SEAWEEDFS
def test_a_held_put_is_unseen_until_its_turn_and_then_one_step(
    remote: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the server is asked without the proxy, which forwards whole requests only."""
    direct = open_store(remote.uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.upstream_port}")
    direct.check(write=False)
    put = Sender(direct, "kept/a", MINE).wait()
    assert not direct.exists("kept/a") and list(direct.list()) == []
    put.complete()
    assert direct.read("kept/a") == MINE
    late = Sender(direct, "kept/b", MINE).wait()
    remote.put("kept/b", THEIRS, if_absent=True)
    with pytest.raises(Conflict):
        late.complete()
    assert direct.read("kept/b") == THEIRS


@SEAWEEDFS
def test_of_held_puts_that_end_together_one_wins(s3: str, tmp_path: Path) -> None:
    """This is what completed multipart uploads do not do everywhere."""
    stores = [open_store(f"{s3}/race-{tmp_path.name}") for _ in range(6)]
    for number in range(4):
        contents = [bytes([who]) * 300_000 for who in range(len(stores))]
        puts = [Sender(store, f"kept/{number}", data) for store, data in zip(stores, contents)]
        for put in puts:
            put.wait()
        won = []

        def complete(who: int) -> None:
            try:
                puts[who].put.complete()  # noqa: B023
                won.append(who)  # noqa: B023
            except Conflict:
                pass

        with ThreadPoolExecutor(len(stores)) as pool:
            list(pool.map(complete, range(len(stores))))
        assert len(won) == 1 and stores[0].read(f"kept/{number}") == contents[won[0]]


@pytest.mark.parametrize("fault", ["reset_after", "error_after", "reset_before", "slow_down", "truncate", "expired"])
def test_a_held_put_whose_answer_is_lost(fault: str, remote: S3Store, proxy: FaultProxy) -> None:
    """It may have succeeded; the put after it must not take itself for another driver, nor another for itself."""
    proxy.script = [fault]
    sender = Sender(remote, "kept/a", MINE)
    sender.wait().complete()
    assert remote.read("kept/a") == MINE
    sender.join()
    proxy.script = [fault]
    late = Sender(remote, "kept/a", THEIRS)
    with pytest.raises(Conflict):
        late.wait().complete()
    proxy.script = ["reset_before"]
    same = Sender(remote, "kept/b", MINE).wait()
    remote.put("kept/b", MINE, if_absent=True)  # takes the place of the fault
    with pytest.raises(Conflict):  # the same bytes of another: its own put has never reached the store
        same.complete()


@SEAWEEDFS
def test_a_put_that_is_dropped_or_killed_leaves_nothing(s3: str, tmp_path: Path) -> None:
    store = open_store(f"{s3}/dropped-{tmp_path.name}")
    sender = Sender(store, "kept/a", MINE)
    sender.wait().drop()
    sender.join()
    before_it_began = store.begin_put("kept/b", MINE)
    before_it_began.drop()
    before_it_began.send()
    dies = """
import os, signal, sys, threading, time
from gristmill.records.stores.opening import open_store
put = open_store(sys.argv[1]).begin_put("kept/c", b"mine" * 100_000)
threading.Thread(target=put.send, daemon=True).start()
while not any(body.is_sending and body.tell() == len(body) - 1 for body in put._bodies):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", dies, store.uri], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert list(store.list()) == []
    assert store.errors.total() == 0  # it was not the store that failed
    store.put("kept/a", THEIRS, if_absent=True)


@MOTO
def test_a_store_that_serves_one_request_at_a_time(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A later lot's put, held back, keeps the server from the lot whose turn it is. After one such wait none is."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(held_put, "HOLD_S", 1.0)
    store = S3Store(f"{s3}/single-{tmp_path.name}")
    committer = Committer(store, check=lambda: time.sleep(0.05))
    began = time.monotonic()
    for lot in range(12):
        committer.submit(Encoded(lot, MINE, None, Summary(num_lots=1)))
    seen: list[int] = []
    while len(seen) < 12:
        seen += [lot for lot, _ in committer.done()]
    committer.stop()
    assert seen == list(range(12)) and time.monotonic() - began < 30
    assert not store.holding.is_allowed and "waited 1 s for its turn" in caplog.text


# In parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A content of 12 MiB, which is put in three parts."""
    monkeypatch.setattr(s3_puts, "ONE_PUT_BYTES", 8 * MIB)
    monkeypatch.setattr(s3_parts, "PART_BYTES", 5 * MIB)
    return random.Random(1).randbytes(12 * MIB)


def uploads(store: S3Store) -> list[str]:
    answer = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix)
    return [upload["Key"].removeprefix(store.prefix) for upload in answer.get("Uploads", [])]


def test_a_large_object_is_put_in_parts(remote: S3Store, proxy: FaultProxy, small_parts: bytes) -> None:
    remote.put("big", small_parts, if_absent=True)
    assert remote.read("big") == small_parts and proxy.requests["POST"] >= 2
    with pytest.raises(Conflict):
        remote.put("big", small_parts[::-1], if_absent=True)
    assert remote.read("big") == small_parts
    remote.put("big", small_parts[::-1])
    assert remote.read("big") == small_parts[::-1]
    assert uploads(remote) == [] and [e.name for e in remote.list()] == ["big"]


LOST = [["reset_after"], ["error_after"], ["error_in_ok"], ["behead"], ["slow_down"], ["reset_after", "no_such_upload"]]


@pytest.mark.parametrize("script", LOST, ids="+".join)
def test_a_completion_that_meets_itself_has_won(
    script: list[str], remote: S3Store, proxy: FaultProxy, small_parts: bytes
) -> None:
    remote._completes_if_absent = True
    proxy.verbs = ("POST",)
    proxy.script = ["ok", *script]  # the first begins the upload
    remote.put("one", small_parts, if_absent=True)
    assert not proxy.script and remote.read("one") == small_parts
    proxy.script = ["ok", *script]
    with pytest.raises(Conflict):
        remote.put("one", small_parts[::-1], if_absent=True)
    assert remote.read("one") == small_parts
    proxy.script = []
    assert uploads(remote) == []


def test_an_upload_that_another_has_ended_is_one_line(remote: S3Store, proxy: FaultProxy, small_parts: bytes) -> None:
    proxy.verbs, proxy.script = ("POST",), ["ok", "no_such_upload"]
    with pytest.raises(UserError, match="its upload was ended by another"):
        remote.put("one", small_parts)
    assert not remote.exists("one") and uploads(remote) == []


@MOTO  # a header that is signed cannot be dropped
def test_a_store_that_ignores_the_condition_gets_no_large_if_absent_puts(
    remote: S3Store, proxy: FaultProxy, small_parts: bytes
) -> None:
    remote.put("one", b"first")
    proxy.dropped = (b"if-none-match",)
    with pytest.raises(UserError, match="ignores If-None-Match where parts are put together"):
        remote.put("one", small_parts, if_absent=True)
    assert remote.read("one") == b"first" and uploads(remote) == []
    remote.put("one", small_parts)
    assert remote.read("one") == small_parts


def test_parts_of_killed_puts_are_swept(remote: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of this output's folders; young ones may be of a driver that lives."""
    other = open_store(f"{remote.uri}x")
    for store in (remote, other):
        for name in ("kept/a", "kept/a", "kept/sub/b", "rejected/c", "nested/kept/d"):
            store.begin_upload(name)
    monkeypatch.setattr(s3_parts, "LEFTOVER_AGE_S", 1e9)
    assert remote.sweep(("kept", "rejected")) == 0
    monkeypatch.setattr(s3_parts, "LEFTOVER_AGE_S", -60.0)
    proxy.refused = (b"uploads",)
    assert remote.sweep(("kept", "rejected")) == 0  # without the right to list uploads a rule of the bucket must do it
    proxy.refused = ()
    assert remote.sweep() == 0
    assert remote.sweep(("kept", "rejected")) == 4
    assert uploads(remote) == ["nested/kept/d"] and len(uploads(other)) == 5
    assert remote.sweep(("",)) == 1


# Again and again


@pytest.fixture
def versioned(remote: S3Store) -> S3Store:
    """A store in a bucket that keeps versions."""
    client, bucket = remote.client, "versions"
    if bucket not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return S3Store(f"s3://{bucket}/{remote.prefix}", patience_s=5.0)


def versions(store: S3Store) -> int:
    answer = store.client.list_object_versions(Bucket=store.bucket, Prefix=store.prefix)
    return len(answer.get("Versions", []))


def test_an_object_that_is_renewed_leaves_no_versions(versioned: S3Store) -> None:
    for number in range(6):
        assert versioned.renew("lease.json", b"%d" % number, if_absent=not number)
    assert versioned.read("lease.json") == b"5" and versions(versioned) == 1
    with pytest.raises(Conflict):
        versioned.renew("lease.json", b"", if_absent=True)
    rival = open_store(versioned.uri)
    rival.renew("lease.json", b"theirs")
    versioned.renew("lease.json", b"mine")
    assert versioned.read("lease.json") == b"mine" and versions(versioned) == 2  # only its own are deleted
    versioned.delete("lease.json")
    assert not versioned.exists("lease.json") and versions(versioned) == 1


def test_versions_that_may_not_be_deleted_are_reported(versioned: S3Store, proxy: FaultProxy) -> None:
    proxy.refused = (b"versionId=",)
    assert versioned.renew("lease.json", b"0")  # nothing to delete yet
    assert not versioned.renew("lease.json", b"1")
    before = versioned.errors.total()
    assert not versioned.renew("lease.json", b"2")
    assert versioned.errors.total() == before > 0 and versions(versioned) == 3  # it does not try again
    proxy.refused, proxy.verbs, proxy.always = (), ("DELETE",), "slow_down"
    patient = S3Store(versioned.uri, patience_s=0.3)
    assert all(patient.renew("lease.json", b"%d" % number) for number in range(3))  # a store in trouble forbids nothing
    proxy.always = None
    assert patient.renew("lease.json", b"3") and versions(patient) == 6


def test_without_versions_nothing_is_deleted(remote: S3Store, proxy: FaultProxy) -> None:
    assert all(remote.renew("lease.json", b"x") for _ in range(3))
    assert proxy.requests == {"PUT": 3}
