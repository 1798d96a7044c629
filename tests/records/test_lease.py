"""A live driver keeps its output; a dead one does not."""

import json
from pathlib import Path

import pytest

from records import lease as module
from records.errors import UserError
from records.lease import NAME, Lease
from records.store import open_store


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


def test_a_rival_on_another_host_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    said: list[str] = []
    lease = Lease(store)
    lease.acquire(said.append)
    assert "watching" in said[0]
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
