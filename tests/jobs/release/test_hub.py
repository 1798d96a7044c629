"""A release goes to the hub: nothing of it is seen before it is whole, and nothing is sent twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from gristmill.jobs.audit.command import audit
from gristmill.jobs.release import run as release_run
from gristmill.jobs.release.command import command as pack
from gristmill.jobs.release.mixture import pack as mixture_pack
from gristmill.jobs.release.target import BEGUN
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.stores.hub_release import ATTRIBUTES, STAGE, HubRelease
from gristmill.records.stores.opening import open_store
from gristmill.records.stores.retry import VARIABLE
from tests.batch_here import Here
from tests.conftest import ROOT
from tests.hub import Fault, Hub, hub
from tests.jobs.release.test_resume import Stopped, files, random_run

NAME = "org/release"
TO = f"hf://datasets/{NAME}"
PAPERS = ["README.md", "croissant.json"]
ROWS = 5000


@contextmanager
def one_task_at_once(*stores: Any) -> Iterator[Here]:
    yield Here(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four shards of about one MiB."""
    return random_run(tmp_path_factory.mktemp("packed") / "run", ROWS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(release_run, "batch_work", one_task_at_once)
    monkeypatch.setattr(mixture_pack, "batch_work", one_task_at_once)
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setenv(VARIABLE, "20")
        yield server


@pytest.fixture(scope="module")
def whole(run: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same release in a folder."""
    to = tmp_path_factory.mktemp("whole") / "release"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release_run, "batch_work", one_task_at_once)
        assert pack(run, str(to), 1) == 0
    return files(to)


def released(server: Hub) -> dict[str, bytes]:
    present = server.files(NAME)
    assert ATTRIBUTES in present
    return {name: data for name, data in present.items() if name != ATTRIBUTES}


def stop_after(num_puts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload after `num_puts` shards ends the process, with all that it knows."""
    upload, done = HubRelease._upload, list[str]()

    def counted(target: HubRelease, name: str, data: bytes) -> None:
        if len(done) == num_puts:
            raise Stopped
        done.append(name)
        upload(target, name, data)

    monkeypatch.setattr(HubRelease, "_upload", counted)


def test_a_release_is_the_same_on_the_hub(run: str, whole: dict[str, bytes], server: Hub) -> None:
    def at_commit(state: Hub, name: str, branch: str) -> None:
        if branch == "main":
            assert {*state.files(name)} <= {ATTRIBUTES}  # no half of a release
            assert state.repos[name].is_private

    server.on_commit = at_commit
    server.part_bytes = 300_000
    assert pack(run, TO, 1) == 0
    assert released(server) == whole and len(whole) == 6
    repo = server.repos[NAME]
    assert repo.is_private and {*repo.branches} == {"main"}
    assert [branch for branch, _ in repo.log] == [STAGE, STAGE, "main"]
    assert len(server.sent) == len({*server.sent}) == len(whole) - len(PAPERS)
    with pytest.raises(UserError, match=f"{TO} is not empty"):
        pack(run, TO, 1)
    assert read_table(DataSpec(TO, columns=("text",))).num_rows == ROWS
    assert sorted(e.name for e in open_store(TO).list("train-")) == sorted(set(whole) - {*PAPERS})


@pytest.mark.parametrize("num_puts", [0, 1, 99])
def test_a_pack_that_was_stopped_goes_on(
    num_puts: int, run: str, whole: dict[str, bytes], server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(num_puts, patch)
        if num_puts == 99:
            patch.setattr(release_run, "end", lambda target: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            pack(run, TO, 1)
    assert not {*server.files(NAME)} - {ATTRIBUTES}
    before, num_shards = len(server.sent), len(whole) - len(PAPERS)
    assert before == min(num_puts, num_shards)
    assert (STAGE in server.repos[NAME].branches) == (num_puts > 0)
    if num_puts:
        assert BEGUN in server.files(NAME, STAGE)
        with pytest.raises(UserError, match="holds the begun release of another command"):
            pack(run, TO, 1, seed=3)
    server.num_bytes = 0
    assert pack(run, TO, 1) == 0
    assert released(server) == whole and len(server.sent) == num_shards
    assert server.num_bytes < 0.7 * sum(map(len, whole.values()))  # shards are proven by their ids


KILLED = """
import os, signal, sys
from gristmill.jobs.release import command
from gristmill.jobs.release import run as release_run
from gristmill.records.stores import hub_release
from tests.jobs.release.test_hub import one_task_at_once

release_run.batch_work, hub_release.COMMIT_SHARDS = one_task_at_once, 2
upload, names = hub_release.HubRelease._upload, []

def counted(target, name, data):
    if len(names) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    names.append(name)
    upload(target, name, data)

hub_release.HubRelease._upload = counted
command.command(*sys.argv[1:], 1)
"""


def test_a_killed_pack_sends_no_shard_again(run: str, whole: dict[str, bytes], server: Hub) -> None:
    """Its last shard is in no commit: it is written again, and the hub has it."""
    killed = subprocess.run([sys.executable, "-c", KILLED, run, TO], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sum(name.startswith("train-") for name in server.files(NAME, STAGE)) == 2
    assert len(server.sent) == 3 and not {*server.files(NAME)} - {ATTRIBUTES}
    assert pack(run, TO, 1) == 0
    assert released(server) == whole and len(server.sent) == len({*server.sent}) == len(whole) - len(PAPERS)


def test_a_hub_in_trouble(run: str, whole: dict[str, bytes], server: Hub) -> None:
    for method, path, status in [
        *[("POST", "/repos/create", 503), ("POST", "/branch/", 429), ("POST", f"/commit/{STAGE}", 409)],
        *[("POST", f"/commit/{STAGE}", 412), ("POST", "/preupload/", 500), ("POST", "/objects/batch", 429)],
        *[("PUT", "/lfs/", 503), ("POST", "/commit/main", 429), ("POST", "/commit/main", 412)],
    ]:
        server.faults.append(Fault(method, path, status, retry_after_s=0))
    server.faults.append(Fault("POST", "/commit/main", 504, is_after=True))  # the answer is lost
    assert pack(run, TO, 1) == 0
    assert not server.faults and released(server) == whole
    assert [branch for branch, _ in server.repos[NAME].log].count("main") == 1


def test_another_commit_in_between(run: str, whole: dict[str, bytes], server: Hub) -> None:
    def once(state: Hub, name: str, branch: str) -> None:
        if branch == "main":
            state.on_commit = None
            state.add(name, {ATTRIBUTES: b"*.parquet filter=lfs\n# theirs\n"})

    server.on_commit = once
    assert pack(run, TO, 1) == 0
    assert released(server) == whole


def test_files_of_others_are_never_mixed_with_a_release(run: str, server: Hub) -> None:
    server.add(NAME, {"notes.txt": b"theirs"}, is_private=True)
    with pytest.raises(UserError, match="is not empty; choose another --to"):
        pack(run, TO, 1)
    server.add("org/late", {ATTRIBUTES: b""}, is_private=True)

    def late(state: Hub, name: str, branch: str) -> None:
        state.on_commit = None
        state.add(name, {"notes.txt": b"theirs"})

    server.on_commit = late
    with pytest.raises(UserError, match=r"another commit has added notes.txt; remove it, or choose another --to"):
        pack(run, "hf://datasets/org/late", 1)
    assert {*server.files("org/late")} == {ATTRIBUTES, "notes.txt"}


def test_who_may_write_and_who_may_read(run: str, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("org/public", {ATTRIBUTES: b""})
    with pytest.raises(UserError, match="the data set is public; add --public to publish there"):
        pack(run, "hf://datasets/org/public", 1)
    monkeypatch.setenv("HF_TOKEN", server.reader_token)
    with pytest.raises(UserError, match="your token lacks the right .*; set HF_TOKEN or run `hf auth login`"):
        pack(run, TO, 1)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(UserError, match="no token for the hub; set HF_TOKEN"):
        pack(run, TO, 1)
    for to in (f"{TO}@v2", f"{TO}/part"):
        with pytest.raises(UserError, match=f"a release fills the main branch of a data set; write {TO}"):
            pack(run, to, 1)
    with pytest.raises(UserError, match="--public is for releases at hf://"):
        pack(run, "out/x", 1, is_public=True)
    assert {*server.repos} == {"org/public"} and not server.sent


def test_a_full_storage_is_one_line(run: str, server: Hub) -> None:
    server.is_full = True
    with pytest.raises(
        UserError, match="the hub does not take it .*Private repository storage limit reached"
    ) as caught:
        pack(run, TO, 1)
    assert "\n" not in str(caught.value)


def test_an_upload_that_another_protocol_carries_is_tried_again(
    run: str, whole: dict[str, bytes], server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hf_xet has errors of its own."""
    preupload, failures = HfApi.preupload_lfs_files, [RuntimeError("cas: broken"), ConnectionResetError("reset")]

    def fails_twice(*arguments: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        preupload(*arguments, **options)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", fails_twice)
    assert pack(run, TO, 1) == 0 and released(server) == whole


def test_a_dry_run_writes_nothing(run: str, server: Hub) -> None:
    assert pack(run, TO, 1, dry_run=True) == 0
    assert not server.repos and not {*server.requests} - {"GET info"}


def test_a_public_release_is_public_when_it_is_whole(run: str, server: Hub) -> None:
    seen = []
    server.on_commit = lambda state, name, branch: seen.append(state.repos[name].is_private)
    assert pack(run, TO, 1, is_public=True) == 0
    assert seen == [True] * 3 and not server.repos[NAME].is_private


def test_datasets_loads_it_and_audit_reads_it(run: str, server: Hub, tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    part = f'[[parts]]\nuri = "{run}"\nshare = 1.0\n'
    mix.write_text(f'name = "mix"\nsynthetic_max = 1.0\nshortfall = "resample"\nrows = 500\n{part}')
    assert pack(str(mix), TO, 1) == 0
    assert "mixture.json" in released(server) and audit(TO).state == "ok"
    code = f"import datasets; print(datasets.load_dataset({NAME!r}, split='train').num_rows)"
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "500", done.stderr
    assert json.loads(released(server)["mixture.json"])["shards"]
