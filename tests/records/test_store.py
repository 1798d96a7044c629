"""Both stores keep the same promises."""

import threading
from pathlib import Path

import pytest

from records.errors import Conflict, UserError
from records.store import Store, open_store, read_bytes


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "out"))
    bucket = request.getfixturevalue("s3")
    return open_store(f"{bucket}/store-{tmp_path.name}")


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


def test_listing_of_more_than_a_page(s3: str, tmp_path: Path) -> None:
    store = open_store(f"{s3}/pages-{tmp_path.name}")
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.put(f"kept/{n:05d}", b""), range(1005)))
    assert [e.name for e in store.list("kept/")] == [f"kept/{n:05d}" for n in range(1005)]


def test_wrong_key_and_missing_bucket_are_one_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such bucket"):
        open_store("s3://no-such-bucket/x").check(write=True)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="access refused.*AWS_SECRET_ACCESS_KEY"):
        open_store(f"{s3}/x").check(write=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot reach http://127.0.0.1:9"):
        open_store(f"{s3}/x").check(write=True)


def test_unknown_scheme_and_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only local paths and s3://"):
        open_store("gs://bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        open_store(str(tmp_path / "file" / "sub")).check(write=True)
    with pytest.raises(UserError, match="no such file"):
        read_bytes(str(tmp_path / "nothing"))


def test_unfinished_puts_are_not_listed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("kept/a", b"1")
    (tmp_path / "kept" / ".tmp-b-123").write_text("half")
    assert [e.name for e in store.list()] == ["kept/a"]
