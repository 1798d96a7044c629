"""A store that lets an if-absent put replace an object is refused before anything is written to it."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.jobs.terminal.output import Output
from gristmill.records.errors import Conflict, UserError
from gristmill.records.output.shards import KEPT, shard_name
from gristmill.records.stores import local
from gristmill.records.stores.contract import PROBE_PREFIX, Entry, Store
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.s3 import S3Store
from tests.conftest import gristmill
from tests.faults import FaultProxy
from tests.recipes import canned

MOTO = pytest.mark.parametrize("s3_server", ["moto"], indirect=True)  # a header that is signed cannot be dropped
IGNORES = (
    "this store ignores conditional puts (If-None-Match: *), so two drivers could overwrite each other's shards; use"
)


def everything(store: Store) -> list[str]:
    """All that the store holds, probes included."""
    return [e.name for e in [*store.list(), *store.list(PROBE_PREFIX)]]


def refusal(store: Store) -> str:
    """The line that refuses the store; nothing remains in it."""
    with pytest.raises(UserError) as caught, Output("produce", "recipe.toml", store.uri).writing():
        pytest.fail("the run has begun")
    assert not isinstance(caught.value, Conflict) and "\n" not in str(caught.value)
    assert everything(store) == []
    return str(caught.value)


def test_a_store_that_keeps_its_promise_is_taken_and_left_as_it_was(store: Store) -> None:
    store.check(write=True)
    assert everything(store) == []
    store.put(shard_name(KEPT, 0), b"lot")
    store.check(write=True)
    assert everything(store) == [shard_name(KEPT, 0)]


def test_the_check_costs_four_requests(remote: S3Store, proxy: FaultProxy) -> None:
    """And the look at the bucket."""
    remote.check(write=True)
    assert proxy.requests == {"HEAD": 1, "PUT": 2, "GET": 1, "DELETE": 1}
    proxy.requests.clear()
    remote.check(write=False)
    assert proxy.requests == {"HEAD": 1}


@MOTO
def test_a_store_that_ignores_the_condition_is_refused(remote: S3Store, proxy: FaultProxy) -> None:
    proxy.dropped = (b"if-none-match",)
    assert f"{remote.uri}: {IGNORES}" in refusal(remote)
    remote.put("one", b"1", if_absent=True)
    remote.put("one", b"2", if_absent=True)  # what would befall a shard
    assert remote.read("one") == b"2"


@MOTO
@pytest.mark.parametrize("fault", ["reset_after", "error_after", "slow_down", "truncate"])
def test_a_lost_answer_does_not_hide_it(fault: str, remote: S3Store, proxy: FaultProxy) -> None:
    """A put that is tried again meets itself: neither a promise kept nor one broken may be read from that."""
    for script in (["ok", fault], ["ok", "ok", fault]):  # the first is the HEAD of the bucket
        proxy.script, proxy.dropped = list(script), ()
        remote.check(write=True)
        proxy.script, proxy.dropped = list(script), (b"if-none-match",)
        assert IGNORES in refusal(remote)


@pytest.mark.parametrize("kind", ["not_implemented", "invalid"])
def test_a_store_that_rejects_the_condition_is_refused(kind: str, remote: S3Store, proxy: FaultProxy) -> None:
    proxy.conditional = kind
    assert "this store has no conditional puts (If-None-Match: *)" in refusal(remote)


def test_other_troubles_keep_their_own_words(remote: S3Store, proxy: FaultProxy) -> None:
    remote = S3Store(remote.uri, patience_s=0.5)
    for kind, words in {"refused": "access refused", "slow_down": "answers 503", "not_implemented": "501"}.items():
        proxy.always = kind
        with pytest.raises(UserError, match=words) as caught:
            remote.check(write=True)
        assert "conditional" not in str(caught.value)


def test_a_409_for_an_object_that_exists_is_a_conflict(remote: S3Store, proxy: FaultProxy) -> None:
    proxy.answers = {412: "exists"}
    remote.check(write=True)
    remote.put("one", b"mine", if_absent=True)
    with pytest.raises(Conflict, match="another run has written it"):
        remote.put("one", b"theirs", if_absent=True)
    proxy.script = ["reset_after"]
    remote.put("two", b"mine", if_absent=True)  # it has met itself
    assert remote.read("one") == remote.read("two") == b"mine"


class Stale(LocalStore):
    """Its listings lag behind."""

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        yield from ()


def test_a_listing_that_lags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lists a new object late.*choose another --out"):
        Stale(str(tmp_path)).check(write=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_renaming_replaces_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))
    monkeypatch.setattr(local, "rename_new", shutil.copyfile)
    assert "this store ignores exclusive renaming, so two drivers could overwrite" in refusal(store)
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_a_killed_check_has_left_is_no_object(store: Store) -> None:
    old, new = (f"{PROBE_PREFIX}{time.time() - age_s:.0f}-0123" for age_s in (7200, 60))
    for name in (old, new, "kept/a"):
        store.put(name, b"first")
    assert [e.name for e in store.list()] == ["kept/a"]
    assert [e.name for e in store.list(".")] == []
    assert store.sweep() == 1 and everything(store) == ["kept/a", new]  # the new one may be of a driver that starts
    store.clear()
    assert everything(store) == []


@MOTO
def test_produce_says_so_in_one_line_and_a_dry_run_writes_nothing(
    remote: S3Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.dropped = (b"if-none-match",)
    recipe, env = canned(tmp_path, 64), {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    done = gristmill("produce", recipe, "--out", remote.uri, "--dry-run", env=env)
    assert done.returncode == 0 and not proxy.requests.keys() & {"PUT", "DELETE", "POST"}, done.stderr
    done = gristmill("produce", recipe, "--out", remote.uri, env=env)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if IGNORES in line]
    assert line.startswith(f"gristmill: {remote.uri}: ")
    assert everything(remote) == []
