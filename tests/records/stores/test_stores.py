"""Both stores keep the same promises."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.records.errors import Conflict, UserError
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store, read_bytes
from tests.conftest import ROOT


def test_put_read_list_delete(store: Store) -> None:
    store.check(write=True)
    for name in ("kept/b", "kept/a", "other/c"):
        store.put(name, name.encode())
    assert [e.name for e in store.list("kept/")] == ["kept/a", "kept/b"]
    assert [e.size for e in store.list("kept/")] == [6, 6]
    assert store.read("other/c") == b"other/c"
    with store.open("kept/a") as file:
        file.seek(2)
        assert file.read() == b"pt/a"
    store.put("kept/a", b"new")
    assert store.read("kept/a") == b"new"
    store.delete("kept/a")
    store.delete("kept/a")
    assert not store.exists("kept/a") and store.exists("kept/b")
    assert store.read_if_there("kept/a") is None
    with pytest.raises(FileNotFoundError):
        store.read("kept/a")
    with pytest.raises(FileNotFoundError):
        store.open("kept/a")


def test_a_listing_from_a_name_to_a_name(store: Store) -> None:
    names = [f"kept/part-{n:08d}.parquet" for n in range(12)]
    for name in names:
        store.put(name, b"x" * 3)
    assert [e.name for e in store.list("kept/", names[3])] == names[4:]
    assert [e.name for e in store.list("kept/", names[3], names[7])] == names[4:8]
    assert [e.name for e in store.list("kept/", "kept/part-00000003", "kept/part-00000005")] == names[3:5]
    assert list(store.list("kept/", names[-1])) == [] and list(store.list("kept/", "kept/z", "kept/zz")) == []


NAMES = (
    "a&b.txt",
    "a <b>.txt",
    "a+b c.txt",
    "quote\"'.txt",
    "per%20cent.txt",
    "&quot;.txt",
    "straße-北.txt",
    "x;y=z.txt",
)


def test_a_listing_gives_names_and_versions_as_they_are(store: Store) -> None:
    for name in NAMES:
        store.put(f"odd/{name}", name.encode())
    entries = list(store.list("odd/"))
    assert [e.name for e in entries] == sorted(f"odd/{name}" for name in NAMES)
    for entry in entries:
        assert entry.version == store.version(entry.name) and entry.size == len(store.read(entry.name, entry.version))


def test_if_absent_has_one_winner(store: Store) -> None:
    winners, losers = [], []

    def rival(number: int) -> None:
        try:
            store.put("kept/one", b"%d" % number, if_absent=True)
            winners.append(number)
        except Conflict:
            losers.append(number)

    threads = [threading.Thread(target=rival, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1 and len(losers) == 7
    assert store.read("kept/one") == b"%d" % winners[0]


@pytest.mark.parametrize("s3_server", ["seaweedfs"], indirect=True)  # moto checks no keys
def test_wrong_key_and_missing_bucket_are_one_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such bucket"):
        open_store("s3://no-such-bucket/x").check(write=True)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="access refused.*AWS_SECRET_ACCESS_KEY"):
        open_store(f"{s3}/x").check(write=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GRISTMILL_S3_RETRY_S", "1")
    with pytest.raises(UserError, match="cannot reach http://127.0.0.1:9"):
        open_store(f"{s3}/x").check(write=True)


def test_unknown_scheme_and_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only local paths, file://, s3://"):
        open_store("ftp://host/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        open_store(str(tmp_path / "file" / "sub")).check(write=True)
    with pytest.raises(UserError, match="no such file"):
        read_bytes(str(tmp_path / "nothing"))


def test_leftovers_of_dead_puts_are_swept_and_others_left_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("kept/a", b"1")
    dead = """
import os, signal, sys
from gristmill.records.stores.opening import open_store
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)  # dies with the whole object in its temporary file
open_store(sys.argv[1]).put("kept/b", b"2")
"""
    killed = subprocess.run([sys.executable, "-c", dead, str(tmp_path)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "kept").glob(".tmp-*")
    mine = store._temp(tmp_path / "kept")  # of a living process
    mine.write_text("half")
    foreign = tmp_path / "kept" / ".tmp-0123456789ab-another-host-7-99"
    foreign.write_text("half")
    assert [e.name for e in store.list()] == ["kept/a"]  # unfinished puts are never listed
    assert store.sweep() == 1
    assert not left.exists() and mine.exists() and foreign.exists()
    os.utime(foreign, (0, 0))  # nothing has been written to it for an hour
    assert store.sweep() == 1
    assert mine.exists() and store.read("kept/a") == b"1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_whole_objects_and_a_clean_error(small_disk: Path) -> None:
    store = open_store(str(small_disk / "out"))
    for number in range(20):
        try:
            store.put(f"kept/{number:02d}", bytes([number]) * 50_000, if_absent=True)
        except UserError as error:
            assert "no space left; make room and run the same command again" in str(error)
            break
    else:
        pytest.fail("the disk was never full")
    there = [e.name for e in store.list()]
    assert there == [f"kept/{n:02d}" for n in range(number)] and number >= 3
    assert not list(small_disk.rglob(".tmp-*")) and store.errors == {"full": 1}
    for n in range(number):
        assert store.read(f"kept/{n:02d}") == bytes([n]) * 50_000
    store.delete("kept/00")
    store.put(f"kept/{number:02d}", bytes([number]) * 50_000, if_absent=True)
    with pytest.raises(UserError, match="no space left"):
        store.put("kept/00", bytes(200_000))  # a replacement fails whole, too
    assert not store.exists("kept/00")


def test_a_limit_on_file_sizes_is_a_clean_error(tmp_path: Path) -> None:
    limited = """
import resource, sys
from gristmill.records.errors import UserError
from gristmill.records.stores.opening import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
store = open_store(sys.argv[1])
store.put("kept/a", bytes(9_000))
try:
    store.put("kept/b", bytes(11_000))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", limited, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert "kept/b: larger than files may be here (ulimit -f)" in done.stdout, done.stderr
    assert [e.name for e in open_store(str(tmp_path)).list()] == ["kept/a"]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_read_error_is_one_line_with_its_reason() -> None:
    with pytest.raises(UserError, match=r"/proc/self/mem: cannot be read \(Input/output error\)"):
        open_store("/proc/self").read("mem")
