"""Lots that are read by tasks, and by a remote store's threads, give the findings of lots that are read here."""

import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gristmill.cluster.reading import is_on_cluster
from gristmill.jobs.audit import mixture, run
from gristmill.jobs.audit.command import examine
from gristmill.records.output import ledger
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store
from tests.batch_here import Here, batch_work_here
from tests.conftest import ROOT

RUN = ROOT / "tests" / "records" / "outputs" / "format-4" / "run"


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """A run with an altered rejected shard, a stranger and a shard that is gone."""
    out = Path(shutil.copytree(RUN, tmp_path / "out"))
    rejected = sorted((out / "rejected").iterdir())
    data = bytearray(rejected[0].read_bytes())
    data[len(data) // 3] ^= 1
    rejected[0].write_bytes(bytes(data))
    rejected[-1].unlink()
    (out / "kept" / "part-00000001.parquet.bak").write_bytes(b"x")
    shutil.copy(out / "kept" / "part-00000000.parquet", out / "kept" / "part-00000002.parquet")
    return str(out)


@pytest.mark.parametrize("is_remote", [False, True])
def test_tasks_find_what_this_process_finds(damaged: str, is_remote: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    here = examine(open_store(damaged))
    assert len(here.errors) > 4 and here.num_checked["lots"] > 2
    monkeypatch.setattr(LocalStore, "is_remote", is_remote)
    monkeypatch.setattr(run, "MIN_LOTS_LOCAL", 1)
    monkeypatch.setattr(run, "MIN_LOTS", 1)
    monkeypatch.setattr(run, "LOTS_PER_TASK", 2)
    monkeypatch.setattr("gristmill.cluster.batch_work.batch_work", batch_work_here)
    num_tasks: list[int] = []
    start = Here.start

    def counted(self: Here, *arguments: object, **options: int) -> list:
        num_tasks.append(1)
        return start(self, *arguments, **options)

    monkeypatch.setattr(Here, "start", counted)
    assert examine(open_store(damaged)) == here
    assert len(num_tasks) == -(-len(ledger.kept_lots(open_store(damaged))) // 2)


def test_a_sound_run_is_proven_by_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MIN_LOTS_LOCAL", 1)
    monkeypatch.setattr(run, "MIN_LOTS", 1)
    monkeypatch.setattr("gristmill.cluster.batch_work.batch_work", batch_work_here)
    assert examine(open_store(str(RUN))).errors == []


def test_a_duplicate_whose_kept_row_is_gone_is_named(tmp_path: Path) -> None:
    owners = set()
    for shard in sorted((RUN / "rejected").iterdir()):
        owners |= set(pq.read_table(shard, columns=["duplicate_of"]).column(0).drop_null().to_pylist())
    num_named = 0
    for shard in sorted((RUN / "kept").iterdir()):
        gone = owners & set(pq.read_table(shard, columns=["id"]).column(0).to_pylist())
        out = Path(shutil.copytree(RUN, tmp_path / shard.stem))
        (out / "kept" / shard.name).unlink()
        lines = [line for line in examine(open_store(str(out))).errors if "which is no kept row" in line]
        named = {line.split("duplicate_of names ")[1][:32] for line in lines}
        assert named <= gone  # duplicates of the lot that is gone are not read: its kept shard named their shard
        num_named += len(named)
    assert num_named


def test_the_cluster_is_the_one_that_ray_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    for address, is_cluster in (("auto", True), ("10.0.0.1:6379", True)):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert is_on_cluster() is is_cluster
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr("sys.modules", {k: v for k, v in sys.modules.items() if k != "ray"})
    assert not is_on_cluster()
    assert mixture.MIN_SHARDS < mixture.MIN_SHARDS_LOCAL
