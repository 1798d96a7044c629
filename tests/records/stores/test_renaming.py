"""Names of new files: taken once, and without a second name in between."""

import errno
import threading
from pathlib import Path

import pytest

from gristmill.records.errors import Conflict
from gristmill.records.stores import renaming
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.renaming import rename_new

NUM_FILES = 200


@pytest.fixture(params=["renameat2", "link", "refused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel's renaming, none of it, and one that the file system refuses."""
    if request.param == "link":
        monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    if request.param == "refused":
        monkeypatch.setattr(renaming, "_renameat2", lambda: lambda *_: -1)
        monkeypatch.setattr(renaming.ctypes, "get_errno", lambda: errno.EINVAL)
    return str(request.param)


def test_a_taken_name_is_refused(way: str, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "old", tmp_path / "new")
    rename_new(tmp_path / "old", tmp_path / "free")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"new": "new", "free": "old"}
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "old", tmp_path / "other")


def test_one_of_many_wins(way: str, tmp_path: Path) -> None:
    store, wins = LocalStore(str(tmp_path)), list[int]()

    def put(number: int) -> None:
        try:
            store.put("name", str(number).encode(), if_absent=True)
            wins.append(number)
        except Conflict:
            pass

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1 and store.read("name") == str(wins[0]).encode()
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_reader_sees_one_version_of_a_new_file(tmp_path: Path) -> None:
    store, is_over, versions = LocalStore(str(tmp_path)), threading.Event(), dict[str, set[str]]()

    def look() -> None:
        while not is_over.is_set():
            for entry in store.list():
                versions.setdefault(entry.name, set()).add(entry.version)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(NUM_FILES):
        put = store.begin_put(f"{number}", b"row")
        put.send()
        put.complete()
    is_over.set()
    reader.join()
    assert {name: len(seen) for name, seen in versions.items() if len(seen) > 1} == {}
