"""Azure and Google Cloud: what the tests of every store do not show."""

import io
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.records import extras
from gristmill.records.errors import Changed, Conflict, UserError
from gristmill.records.output.lease import Lease
from gristmill.records.stores import cloud
from gristmill.records.stores.cloud import CloudStore
from gristmill.records.stores.opening import open_output, open_store
from gristmill.records.stores.retry import VARIABLE
from tests import session
from tests.cloud_servers import Azurite, FakeGCS, environment
from tests.faults import FaultProxy, faults


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> FakeGCS:
    server = session.cloud_server(FakeGCS)
    environment(server, monkeypatch)
    return server


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CloudStore:
    environment(session.cloud_server(Azurite), monkeypatch)
    return CloudStore(f"az://mill/cloud-{tmp_path.name}")


def test_google_is_listed_and_read(google: FakeGCS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "PAGE_NAMES", 2)
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": list(range(100_000))}), sink, compression="none")
    contents = {
        "in/a b+\u00e9.jsonl": b"1\n",
        "in/b.txt": b"22",
        "in/big.parquet": sink.getvalue(),
        "in/empty": b"",
        "inx": b"no",
    }
    for name, data in contents.items():
        google.add(name, data)
    store = open_store("gs://mill/in")
    store.check(write=False)
    entries = list(store.list())
    assert [e.name for e in entries] == ["a b+\u00e9.jsonl", "b.txt", "big.parquet", "empty"]
    for entry in [*entries, *pickle.loads(pickle.dumps(store)).list("b", "b.txt")]:
        data = contents[f"in/{entry.name}"]
        assert entry.size == len(data) and entry.version == store.version(entry.name)
        assert store.read(entry.name, entry.version) == data
        with store.open(entry.name, entry.version) as file:
            assert file.read() == data
    with store.open("big.parquet") as file, pq.ParquetFile(file) as parquet:
        assert parquet.metadata.num_rows == 100_000
    google.add("in/b.txt", b"33")
    for read in (store.read, store.open):
        with pytest.raises(Changed, match="changed since it was listed"):
            read("b.txt", entries[1].version)
    assert [e.name for e in store.list("", "a b", "b.txt")] == ["a b+\u00e9.jsonl", "b.txt"]
    with pytest.raises(FileNotFoundError):
        store.read("nothing")


def test_google_is_no_place_for_outputs(google: FakeGCS) -> None:
    with pytest.raises(UserError, match="an output cannot be here; choose a folder, s3:// or az://"):
        open_output("gs://mill/out")
    with pytest.raises(UserError, match="gs:// is for inputs"):
        open_store("gs://mill/out").check(write=True)


def test_wrong_addresses_and_settings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no bucket named; write az://bucket/prefix"):
        open_store("az://")
    for name in ("AZURE_STORAGE_USE_EMULATOR", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY") as caught:
        open_store("az://mill/x").check(write=True)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(extras, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name=name)))
    with pytest.raises(
        UserError, match=r"package 'obstore' is missing; install it with pip install 'gristmill\[cloud\]'"
    ):
        open_store("az://mill/x").check(write=True)


def test_a_missing_container_is_one_line(azure: CloudStore) -> None:
    for write in (False, True):
        with pytest.raises(UserError, match="az://nothing: no such bucket"):
            CloudStore("az://nothing/x").check(write=write)


def test_a_lease_is_held_by_one(azure: CloudStore) -> None:
    lease = Lease(azure)
    lease.acquire()
    with pytest.raises(UserError, match="is being written by another driver"):
        Lease(azure).acquire()
    lease.check()
    lease.release()
    assert not azure.exists("lease.json")


def test_an_object_that_is_replaced_during_a_read(azure: CloudStore) -> None:
    data = random.Random(1).randbytes(3 << 20)
    azure.put("big", data)
    version = azure.version("big")
    with azure.open("big", version) as file:
        assert file.read(1000) == data[:1000]
        azure.put("big", bytes(len(data)))
        with pytest.raises(UserError, match="was replaced during the read"):
            file.read()
    with pytest.raises(Changed):
        azure.fetch("big", 0, 10, version)


@pytest.fixture
def proxy(azure: CloudStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with faults(session.cloud_server(Azurite).port) as proxy:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv(VARIABLE, "20")
        yield proxy


@pytest.mark.parametrize("kind", ["slow_down", "error_after", "reset_before", "reset_after", "truncate"])
def test_each_verb_survives_each_fault(kind: str, proxy: FaultProxy, azure: CloudStore) -> None:
    store = CloudStore(azure.uri)
    proxy.verbs = (*proxy.verbs, "POST")  # which deletes
    proxy.script = [kind]
    store.put("a", b"new")
    proxy.script = [kind]
    store.put("b", b"bee", if_absent=True)
    with pytest.raises(Conflict):
        store.put("b", b"bee", if_absent=True)
    for answer, call in {
        b"new": lambda: store.read("a"),
        "ab": lambda: "".join(e.name for e in store.list()),
        True: lambda: store.exists("a"),
        None: lambda: store.delete("a"),
    }.items():
        proxy.script = [kind]
        assert call() == answer and not proxy.script


def test_the_bound_of_retries(proxy: FaultProxy, azure: CloudStore) -> None:
    proxy.always = "slow_down"
    with pytest.raises(UserError, match=r"Azure Blob Storage answers 503.*, tried [0-9]+ times in"):
        CloudStore(azure.uri, patience_s=0.4).put("a", b"1")
