"""Commits stay a prefix, whatever a put does, and no bytes that travel ahead are seen before their turn."""

import threading
from pathlib import Path

import pytest

from gristmill.cluster.lots.commit import Committer
from gristmill.records.errors import Conflict, UserError
from gristmill.records.output.shard_names import KEPT, kept_lot, shard_name
from gristmill.records.output.shards import Encoded, Summary
from gristmill.records.stores import s3_puts
from gristmill.records.stores.contract import PendingPut
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store
from gristmill.records.stores.s3 import S3Store
from tests.faults import faults, wait_until

SIZE = 300_000  # enough to be sent ahead


def encoded(lot: int, size: int = SIZE) -> Encoded:
    return Encoded(lot, bytes([lot]) * size, b"rejected", Summary(num_lots=1))


class Moody(LocalStore):
    """A store that refuses one lot, as a full disk or a 503 would."""

    refused = 3

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if kept_lot(name) == self.refused:
            raise UserError("no")
        super().put(name, data, if_absent=if_absent)

    def begin_put(self, name: str, data: bytes) -> PendingPut:
        return PendingPut(self, name, data) if kept_lot(name) == self.refused else super().begin_put(name, data)


def test_no_lot_is_committed_after_one_that_failed(tmp_path: Path) -> None:
    store = Moody(str(tmp_path))
    committer = Committer(store)
    for lot in range(8):
        committer.submit(encoded(lot))
    seen: list[int] = []
    with pytest.raises(UserError, match="no"):
        while True:
            seen += [lot for lot, _ in committer.done()]
    seen += [lot for lot, _ in committer.stop()]
    assert seen == [0, 1, 2]
    assert [e.name for e in store.list("kept/")] == [f"kept/part-{n:08d}.parquet" for n in range(3)]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_what_was_put_while_stopping_is_counted(tmp_path: Path) -> None:
    committer = Committer(LocalStore(str(tmp_path)))
    for lot in range(4):
        committer.submit(encoded(lot))
    ended = [lot for lot, _ in committer.stop()]
    assert ended == list(range(len(ended)))
    assert len(list(LocalStore(str(tmp_path)).list("kept/"))) == len(ended)
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("where", ["local", "s3"])
def test_bytes_travel_ahead_and_lots_appear_in_order(
    where: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lot waits for its check while all others are sent: none of them is there before it."""
    out = str(tmp_path / "out") if where == "local" else f"{request.getfixturevalue('s3')}/ahead-{tmp_path.name}"
    store, may_commit = open_store(out), threading.Event()
    num_ahead = 0
    read = s3_puts.HeldBody.read

    def counted(body: s3_puts.HeldBody, size: int | None = -1) -> bytes:
        nonlocal num_ahead
        num_ahead += body.is_sending and body.tell() == len(body) - 1
        return read(body, size)

    monkeypatch.setattr(s3_puts.HeldBody, "read", counted)
    committer = Committer(store, check=lambda: may_commit.wait(60) and None)
    for lot in range(6):
        committer.submit(encoded(lot))

    def is_sent() -> bool:
        return num_ahead == 6 if where == "s3" else len(list((tmp_path / "out").rglob("kept/.tmp-*"))) == 6

    wait_until("all lots sent", is_sent)
    assert list(store.list(f"{KEPT}/")) == [] and committer.done() == []
    may_commit.set()
    seen: list[int] = []
    while len(seen) < 6:
        seen += [lot for lot, _ in committer.done()]
        there = [kept_lot(e.name) for e in store.list(f"{KEPT}/")]
        assert there == list(range(len(there)))
    assert seen == list(range(6)) and committer.stop() == []
    assert store.read(shard_name(KEPT, 5)) == encoded(5).kept
    assert not list(tmp_path.rglob(".tmp-*"))


FAULTS = ["reset_before", "reset_after", "error_after", "slow_down", "truncate", "behead", "deciding"]


def test_whatever_befalls_the_puts_lots_stay_a_prefix(s3_server: dict[str, str], tmp_path: Path, monkeypatch) -> None:
    with faults(int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2]), seed=5) as proxy:
        for name, value in proxy.env(s3_server).items():
            monkeypatch.setenv(name, value)
        store = S3Store(f"s3://mill/commits-{tmp_path.name}", patience_s=30.0)
        proxy.share, proxy.kinds = 0.4, tuple(FAULTS)
        committer = Committer(store)
        for lot in range(12):
            committer.submit(encoded(lot, SIZE if lot % 3 else 1))
        seen: list[int] = []
        while len(seen) < 12:
            seen += [lot for lot, _ in committer.done()]
        assert committer.stop() == [] and seen == list(range(12))
        proxy.share = 0.0
        assert [kept_lot(e.name) for e in store.list(f"{KEPT}/")] == list(range(12))
        assert all(store.read(shard_name(KEPT, lot))[:1] == bytes([lot]) for lot in range(12))


def test_a_driver_that_was_overtaken_drops_what_it_has_sent(s3: str, tmp_path: Path) -> None:
    """Another driver has committed lot 1; nothing of lots 2 to 5, which are on their way, may appear."""
    store = open_store(f"{s3}/overtaken-{tmp_path.name}")
    rival = open_store(store.uri)
    rival.put(shard_name(KEPT, 1), b"theirs" * SIZE)
    committer = Committer(store)
    for lot in range(6):
        committer.submit(encoded(lot))
    seen: list[int] = []
    with pytest.raises(Conflict):
        while True:
            seen += [lot for lot, _ in committer.done()]
    committer.stop()
    assert seen == [0]
    assert [kept_lot(e.name) for e in store.list(f"{KEPT}/")] == [0, 1]
    assert store.read(shard_name(KEPT, 1))[:6] == b"theirs"
