"""Objects are copied into a folder by ranges, many at once."""

import random
import threading
from pathlib import Path

import pytest

from gristmill.engines import models
from gristmill.records.errors import Changed, UserError
from gristmill.records.stores import download as module
from gristmill.records.stores.contract import Store
from gristmill.records.stores.download import download
from gristmill.records.stores.s3 import S3Store
from tests.faults import FaultProxy
from tests.records.stores.test_faults import QUICK

SIZES = {"config.json": 100, "empty": 0, "a/model-1.safetensors": 300_001, "a/b/model-2.safetensors": 262_144}


def filled(store: Store) -> dict[str, bytes]:
    contents = {name: random.Random(name).randbytes(size) for name, size in SIZES.items()}
    for name, data in contents.items():
        store.put(name, data)
    return contents


def test_a_folder_is_the_same_bytes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RANGE_BYTES", 65_536)
    contents = filled(store)
    download(store, list(store.list()), tmp_path / "copy")
    there = {
        str(p.relative_to(tmp_path / "copy")): p.read_bytes() for p in (tmp_path / "copy").rglob("*") if p.is_file()
    }
    assert there == contents


def test_faults_change_no_byte(
    remote: S3Store, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RANGE_BYTES", 20_000)
    contents = filled(remote)
    proxy.share, proxy.kinds = 0.3, QUICK
    download(remote, list(remote.list()), tmp_path / "copy")
    for name, data in contents.items():
        assert (tmp_path / "copy" / name).read_bytes() == data


def test_an_object_that_changes_meanwhile_is_no_copy(store: Store, tmp_path: Path) -> None:
    filled(store)
    entries = list(store.list())
    store.put("config.json", b"other")
    with pytest.raises(Changed, match=r"config\.json"):
        download(store, entries, tmp_path / "copy")


def test_a_store_in_trouble_ends_the_download(remote: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
    filled(remote)
    entries = list(remote.list())
    proxy.always = "refused"
    with pytest.raises(UserError, match="access refused"):
        download(remote, entries, tmp_path / "copy")


def test_a_model_in_a_bucket_is_fetched_over_many_connections(
    remote: S3Store, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RANGE_BYTES", 65_536)
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    contents = filled(remote)
    gate, num_waiting, lock = threading.Event(), 0, threading.Lock()
    fetch = S3Store.fetch

    def meeting(store: S3Store, *arguments: object) -> bytes:
        """Return when five ranges are asked for at once."""
        nonlocal num_waiting
        with lock:
            num_waiting += 1
            if num_waiting == 5:
                gate.set()
        assert gate.wait(30)
        return fetch(store, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(S3Store, "fetch", meeting)
    folder = Path(models.resolve(remote.uri))
    assert {name: (folder / name).read_bytes() for name in contents} == contents
    assert models.resolve(remote.uri) == str(folder)
