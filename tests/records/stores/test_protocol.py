"""Names, pages and bytes that servers of the S3 protocol treat differently, on a folder and on two servers."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from gristmill.records.errors import Conflict
from gristmill.records.output.ledger import committed
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import KEPT, shard_name
from gristmill.records.stores import s3
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store
from tests.faults import FaultProxy

NAMES = [
    "plain",
    "with space",
    "a+b",
    "a b+c",
    "100%",
    "%2B",
    "%20 ",
    "a&b=c",
    "what?",
    "#1",
    "semi;colon",
    "a,b",
    "(x)[y]{z}",
    "quote\"'",
    "<tag>&amp;",
    "~tilde!",
    "key=value@host:1",
    "été",
    "日本語",
    "emoji 😀",
    "\uffee",
    ".hidden",
    "A",
    "a",
    "a.b",
    "a-b",
    "a0",
]


def test_any_name_is_put_listed_read_and_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE_NAMES", 7)
    names = [*(f"dir 0+é/{name}" for name in NAMES), "dir 1+é/a"]
    for name in random.Random(0).sample(names, len(names)):
        store.put(name, name.encode(), if_absent=True)
    assert [e.name for e in store.list()] == sorted(names)  # by code points, as S3 does
    assert [e.size for e in store.list()] == [len(name.encode()) for name in sorted(names)]
    for prefix in ("dir 0+é/", "dir 1+é/a", "dir 0+é/a b+", "dir 0+é/日", "dir", "nothing"):
        assert [e.name for e in store.list(prefix)] == sorted(n for n in names if n.startswith(prefix)), prefix
    for name in names:
        assert store.exists(name) and store.read(name) == name.encode()
        with store.open(name) as file:
            assert file.read() == name.encode()
        with pytest.raises(Conflict):
            store.put(name, b"other", if_absent=True)
    for name in names[::2]:
        store.delete(name)
        assert not store.exists(name)
    assert [e.name for e in store.list()] == sorted(names[1::2])  # a listing knows of a delete at once
    for name in names[::2]:
        store.put(name, b"again", if_absent=True)  # and so does a condition
    assert [e.name for e in store.list()] == sorted(names)
    store.clear()
    assert [*store.list()] == []


@pytest.mark.parametrize("prefix", ["a b+c", "é/日本", "%41", "x=1/y&z"])
def test_a_prefix_holds_any_characters(s3: str, prefix: str, tmp_path: Path) -> None:
    store = open_store(f"{s3}/{tmp_path.name}/{prefix}/")
    other = open_store(f"{s3}/{tmp_path.name}/{prefix}x")
    other.put("kept/b", b"other")
    store.put("kept/a", b"mine")
    assert [e.name for e in store.list()] == ["kept/a"] and store.read("kept/a") == b"mine"
    filesystem, path = store.filesystem()
    with filesystem.open_input_file(f"{path}/kept/a") as file:
        assert file.read() == b"mine"


def test_a_prefix_with_many_pages_is_listed_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages end at every place, also where there is nothing more."""
    for lot in range(12):
        store.put(shard_name(KEPT, lot), b"")
    for page in (1, 2, 3, 5, 11, 12, 13):
        monkeypatch.setattr(s3, "PAGE_NAMES", page)
        assert sorted(committed(store, Manifest("", {}, {}))) == list(range(12)), page


def test_large_objects_are_read_in_ranges_and_never_mixed(remote: Store, proxy: FaultProxy) -> None:
    """Each range is asked for by the tag of the first, whatever quotes a server puts around a tag."""
    data = random.Random(3).randbytes(9 << 20)
    remote.put("big", data)
    with remote.open("big") as file:
        assert file.size() == len(data)
        for start in (0, 5 << 20, len(data) - 100, 1 << 20):
            file.seek(start)
            assert file.read(1000) == data[start : start + 1000]
        file.seek(0)
        assert file.read() == data
    assert remote.errors.total() == 0 and proxy.requests["GET"] >= 4


def test_arrow_scans_the_store(store: Store) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema({"x": pa.int64()})) as writer:
        writer.write_table(pa.table({"x": list(range(100))}))
    for lot in range(3):
        store.put(f"kept/part {lot}+.arrow", sink.getvalue().to_pybytes())
    filesystem, path = store.filesystem()
    assert ds.dataset(f"{path}/kept", filesystem=filesystem, format="ipc").count_rows() == 300
