"""Data sets on the hub as inputs: a hub on loopback, reached by HF_ENDPOINT."""

import gzip
import hashlib
import io
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from gristmill.records import pins
from gristmill.records.errors import Changed, InputChanged, UserError
from gristmill.records.stores import hub_client
from gristmill.records.stores.digest import digest_content
from gristmill.records.stores.hub import HubStore
from gristmill.records.stores.hub_client import HubAddress, hub_address, pause_of
from gristmill.records.stores.opening import open_output, open_store
from gristmill.records.stores.retry import VARIABLE
from tests.hub import Fault, Hub, hub

URI = "hf://datasets/org/texts"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv(VARIABLE, "20")
        yield server


def parquet(num_rows: int = 3000) -> bytes:
    sink = io.BytesIO()
    rng = random.Random(1)
    pq.write_table(pa.table({"text": [rng.randbytes(100).hex() for _ in range(num_rows)]}), sink, row_group_size=500)
    return sink.getvalue()


FILES = {
    "README.md": b"# texts\n",
    "data/a b+.jsonl": b'{"text": "1"}\n' * 50,
    "data/c.jsonl.gz": gzip.compress(b"x"),
    "data/train.parquet": parquet(),
    "\u00e9/empty.jsonl": b"",
}


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("hf://datasets/org/name", HubAddress("org/name", "main", "")),
        ("hf://datasets/org/name/", HubAddress("org/name", "main", "")),
        ("hf://datasets/org/name@v1.0/a/b.jsonl", HubAddress("org/name", "v1.0", "a/b.jsonl")),
        (
            "hf://datasets/org/name@refs/convert/parquet/default",
            HubAddress("org/name", "refs/convert/parquet", "default"),
        ),
        ("hf://datasets/org/name@refs%2Fpr%2F3", HubAddress("org/name", "refs/pr/3", "")),
        ("hf://datasets/org/name/a@b.txt", HubAddress("org/name", "main", "a@b.txt")),
    ],
)
def test_addresses(uri: str, address: HubAddress) -> None:
    assert hub_address(uri) == address


@pytest.mark.parametrize(
    "uri", ["hf://org/name", "hf://datasets/name", "hf://datasets/org/na me", "hf://spaces/a/b", "hf://"]
)
def test_other_addresses_are_one_line(uri: str) -> None:
    with pytest.raises(UserError, match="write hf://datasets/org/name"):
        open_store(uri)


def test_a_data_set_is_listed_and_read(server: Hub) -> None:
    server.page = 2
    server.add("org/texts", FILES)
    store = open_store(URI)
    store.check(write=False)
    entries = {entry.name: entry for entry in store.list()}
    assert [*entries] == sorted(FILES)
    for name, data in FILES.items():
        assert entries[name].size == len(data) == int(store.version(name).partition("-")[0])
        assert store.read(name) == store.read(name, entries[name].version) == data
        with store.open(name, entries[name].version) as file:
            assert file.read() == data
        assert digest_content(store, name, entries[name].version) == hashlib.sha256(data).hexdigest()[:32]
    folder = open_store(f"{URI}@main/data")
    assert [e.name for e in folder.list()] == ["a b+.jsonl", "c.jsonl.gz", "train.parquet"]
    assert [e.name for e in folder.list("c")] == ["c.jsonl.gz"] and folder.exists("c.jsonl.gz")
    assert [e.name for e in store.list("data/", "data/b", "data/c.jsonl.gz")] == ["data/c.jsonl.gz"]
    assert list(open_store(f"{URI}/nothing").list()) == [] and not store.exists("nothing")
    for missing in (store.read, store.version, store.open):
        with pytest.raises(FileNotFoundError):
            missing("nothing")
    assert store.errors.total() == 0


def test_a_column_of_parquet_is_read_by_ranges(server: Hub) -> None:
    data = parquet(60_000)
    server.add("org/texts", {"train.parquet": data})
    with HubStore(URI).open("train.parquet") as file, pq.ParquetFile(file) as parquet_file:
        assert parquet_file.read_row_group(50, use_threads=False).num_rows == 500
    assert server.num_bytes < len(data) / 10
    assert 0 < server.requests["GET resolve"] <= 2 < 40
    filesystem, path = HubStore(URI).filesystem()
    assert ds.dataset(f"{path}/train.parquet", filesystem=filesystem).count_rows() == 60_000


def test_a_hub_that_ignores_ranges_is_read_all_the_same(server: Hub) -> None:
    data = parquet(10_000)
    server.add("org/texts", {"train.parquet": data})
    server.ignores_ranges = True
    with HubStore(URI).open("train.parquet") as file:
        file.seek(1000)
        assert file.read(500_000) == data[1000:501_000] and HubStore(URI).fetch("train.parquet", 5, 9) == data[5:9]


def test_an_expired_address_of_a_large_file_is_renewed(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(2).randbytes(3 << 20)
    server.add("org/texts", {"big.zst": data})
    store = HubStore(URI)
    with store.open("big.zst") as file:
        assert file.read(1000) == data[:1000]
        before = server.requests["GET resolve"]
        assert file.read(400_000) == data[1000:401_000] and server.requests["GET resolve"] == before
        server.faults.append(Fault("GET", "/cdn/", 403))
        assert file.read() == data[401_000:] and server.requests["GET resolve"] == before + 1


def test_everything_is_read_at_the_commit_of_the_start(server: Hub) -> None:
    first = server.add("org/texts", {"a.jsonl": b"1\n", "b.jsonl": b"2\n"})
    run = pins.Pins()
    with run.active():
        store = open_store(URI)
        entries = pins.entries(store, lambda name: True)
    server.add("org/texts", {"a.jsonl": b"3\n", "c.jsonl": b"4\n"})
    assert store.read("a.jsonl") == pickle.loads(pickle.dumps(store)).read("a.jsonl") == b"1\n"
    with pickle.loads(pickle.dumps(run)).active():  # a worker
        assert pins.entries(open_store(URI), lambda name: True) == entries
    later = open_store(URI)  # the next start
    assert later.read("a.jsonl") == b"3\n" and later.version("b.jsonl") == store.version("b.jsonl")
    with pytest.raises(Changed, match="changed since it was listed"):
        later.open("a.jsonl", store.version("a.jsonl"))
    assert open_store(f"{URI}@{first}").read("a.jsonl") == b"1\n"


def test_a_changed_file_is_noticed(server: Hub) -> None:
    server.add("org/texts", {"a.jsonl": b"1\n"})
    pin = pins.Pin(HubStore(URI), "a.jsonl", HubStore(URI).version("a.jsonl"))
    assert pin.read() == b"1\n"
    server.add("org/texts", {"a.jsonl": b"22\n"})
    pin.check()  # it reads its commit
    pin.store = HubStore(URI)
    with pytest.raises(InputChanged, match="a.jsonl changed since this run began .2 bytes became 3."):
        pin.read()


def test_who_may_read(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("org/texts", FILES, is_private=True)
    server.add("org/gated", {"a.jsonl": b"1\n"}, is_gated=True)
    sign_in = "set HF_TOKEN or run `hf auth login`"
    for uri in (URI, "hf://datasets/org/nothing"):
        with pytest.raises(UserError, match=f"no such data set on http.*, or a private one: {sign_in}"):
            open_store(uri).check(write=False)
    with pytest.raises(UserError, match=f"the data set is gated; accept its terms at http.*org/gated and {sign_in}"):
        open_store("hf://datasets/org/gated").read("a.jsonl")
    monkeypatch.setenv("HF_TOKEN", server.reader_token)
    assert open_store(URI).read("README.md") == FILES["README.md"]
    assert open_store("hf://datasets/org/gated").read("a.jsonl") == b"1\n"
    with pytest.raises(UserError, match="no such data set .*or one that your token may not read"):
        open_store("hf://datasets/org/nothing").check(write=False)
    with pytest.raises(UserError, match="the data set has no such revision .Invalid rev id: v9"):
        open_store(f"{URI}@v9").check(write=False)


def test_an_output_is_refused(server: Hub) -> None:
    with pytest.raises(UserError, match="an output cannot be here"):
        open_output(URI)
    for write in (lambda: open_store(URI).check(write=True), lambda: open_store(URI).put("a", b"")):
        with pytest.raises(UserError, match="read only; `gristmill pack --to` writes"):
            write()


@pytest.mark.parametrize("status", [429, 500, 0])
def test_a_hub_in_trouble_is_asked_again(status: int, server: Hub) -> None:
    server.add("org/texts", FILES)
    store = HubStore(URI)
    for path in ("/revision/", "/tree/", "/resolve/", "/cdn/"):
        server.faults.append(Fault("GET", path, status, times=2, retry_after_s=0))
    assert [e.name for e in store.list()] == sorted(FILES)
    assert store.read("data/train.parquet") == FILES["data/train.parquet"]
    assert not server.faults and store.errors == ({str(status): 8} if status else {"connection": 6})


def test_the_bound_of_retries(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("org/texts", FILES)
    monkeypatch.setenv(VARIABLE, "0.3")
    server.faults.append(Fault("GET", "/revision/", 429, times=1000))
    with pytest.raises(UserError, match="answers 429, tried [0-9]+ times"):
        HubStore(URI).check(write=False)
    server.faults[0].retry_after_s = 100_000
    with pytest.raises(UserError, match="answers 429, tried 1 times"):
        HubStore(URI).check(write=False)
    server.faults = [Fault("GET", "/revision/", 429, retry_after_s=1)]
    HubStore(URI).check(write=False)  # a pause that the hub asks for has a bound of its own
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="http://127.0.0.1:9 cannot be reached"):
        HubStore(URI).check(write=False)


def test_pauses_that_a_hub_asks_for() -> None:
    assert pause_of({"Retry-After": "7"}) == 7.0 and pause_of({}) == 0.0
    assert pause_of({"RateLimit": '"api";r=0;t=55'}) == 55.0 and pause_of({"RateLimit": '"api";r=3;t=55'}) == 0.0
    assert pause_of({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert pause_of({"Retry-After": "soon"}) == 0.0


def test_other_bytes_than_listed_are_an_error(server: Hub) -> None:
    server.add("org/texts", {"a.jsonl": b"1\n"})
    store = HubStore(URI)
    oid = next(iter(store.list())).version.partition("-")[2]
    server.contents[oid] = b"2\n"
    with pytest.raises(UserError, match="other bytes than its listing says"):
        store.read("a.jsonl")
    server.contents[oid] = b"2"
    with pytest.raises(UserError, match="sent 1 of 2 bytes"):
        store.read("a.jsonl")


def test_an_answer_of_something_else_is_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a portal that wants a login."""
    server.add("org/texts", FILES)
    for path in ("/revision/", "/tree/", "/paths-info/"):
        server.faults.append(Fault("POST" if "paths" in path else "GET", path, 200))
        with pytest.raises(UserError, match="http.* does not answer as a hub does"):
            store = HubStore(URI)
            store.check(write=False)
            store.version("README.md")
            list(store.list())


def test_the_timeout_of_a_try(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import get_session

    server.add("org/texts", FILES)
    monkeypatch.setattr(hub_client, "READ_S", 5.0)
    HubStore(URI).check(write=False)
    assert get_session().timeout.read == 5.0 and get_session().timeout.connect == pytest.approx(20 / 3)
