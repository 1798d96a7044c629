"""A pack that is stopped goes on with the same command: finished shards are proven and kept, others are written."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gristmill.jobs.release import run as release_run
from gristmill.jobs.release import write
from gristmill.jobs.release.command import command as pack
from gristmill.jobs.release.mixture import pack as mixture_pack
from gristmill.jobs.release.target import BEGUN
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import load
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store
from tests.batch_here import batch_work_here
from tests.jobs.release.mixture.test_mixture import make_run
from tests.recipes import write as write_recipe

RECIPE = {"name": "run", "generator": {"kind": "canned"}, "method": None, "stages": [], "description": None}
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz0123456789 "))


class Stopped(Exception):
    """Ctrl-C, or a node that is gone."""


def random_run(folder: Path, num_rows: int) -> str:
    """A run in lots of 600 rows, in random letters: a shard of one MiB for each 1,200 rows."""
    random = np.random.default_rng(5)
    texts = ["".join(random.choice(LETTERS, 1200)) for _ in range(num_rows)]
    uri = make_run(folder, texts, lot=600)
    manifest = load(open_store(uri))
    assert manifest is not None
    manifest.recipe.update(RECIPE)
    manifest.save(open_store(uri))
    return uri


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five shards of one MiB."""
    return random_run(tmp_path_factory.mktemp("packed") / "run", 6000)


@pytest.fixture
def source(request: pytest.FixtureRequest, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(release_run, "batch_work", batch_work_here)
    monkeypatch.setattr(mixture_pack, "batch_work", batch_work_here)
    if request.param == "run":
        return run
    parts = [{"uri": run, "share": 1.0}]
    keys = {"name": "mix", "synthetic_max": 1.0, "shortfall": "resample", "rows": 7000, "parts": parts}
    return write_recipe(tmp_path / "mix.toml", keys)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stop_after(num_puts: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of shards that are put; the put after `num_puts` shards fails."""
    names: list[str] = []
    put = LocalStore.put

    def counted(store: Store, name: str, data: bytes, **options: Any) -> None:
        if name.startswith("train-"):
            if len(names) == num_puts:
                raise Stopped
            names.append(name)
        put(store, name, data, **options)

    monkeypatch.setattr(LocalStore, "put", counted)
    return names


@pytest.mark.parametrize("source", ["run", "mixture"], indirect=True)
@pytest.mark.parametrize("num_puts", [1, 3, 99])
def test_the_same_command_goes_on(
    source: str, num_puts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert pack(source, str(tmp_path / "whole"), 1) == 0
    whole = files(tmp_path / "whole")
    num_shards = sum(name.startswith("train-") for name in whole)
    assert num_shards > 4 and BEGUN not in whole
    to = tmp_path / "again"
    with monkeypatch.context() as patch:
        stop_after(num_puts, patch)
        if num_puts == 99:  # stopped between the last shard and the card
            patch.setattr(release_run, "end", lambda target: (_ for _ in ()).throw(Stopped))
            patch.setattr(mixture_pack, "end", lambda target: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            pack(source, str(to), 1)
    assert (to / BEGUN).is_file()
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        written = stop_after(99, patch)
        assert pack(source, str(to), 1) == 0
    assert len(written) == max(0, num_shards - num_puts) and files(to) == whole
    assert f"going on after {min(num_puts, num_shards)} of {num_shards} shards" in caplog.text
    with pytest.raises(UserError, match="is not empty"):
        pack(source, str(to), 1)


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def another(path: Path) -> None:
    """A whole shard with other rows of this release."""
    other = next(p for p in sorted(path.parent.glob("train-*")) if p != path)
    path.write_bytes(other.read_bytes())


def unsealed(path: Path) -> None:
    pq.write_table(pq.read_table(path), path)


@pytest.mark.parametrize("source", ["run"], indirect=True)
@pytest.mark.parametrize("damage", [altered, short, another, unsealed])
def test_a_shard_that_is_not_whole_is_written_again(
    source: str, damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert pack(source, str(tmp_path / "whole"), 1) == 0
    to = tmp_path / "again"
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(Stopped):
            pack(source, str(to), 1)
    victim = sorted(to.glob("train-*"))[1]
    damage(victim)
    assert pack(source, str(to), 1) == 0
    assert files(to) == files(tmp_path / "whole") and f"{victim.name}: not the shard of this release" in caplog.text


@pytest.mark.parametrize("source", ["run"], indirect=True)
def test_a_begun_release_of_another_command_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Stopped):
            pack(source, str(to), 1, seed=3)
    before = files(to)
    for flags, difference in (
        ({"seed": 4}, "seed: 3 -> 4"),
        ({"seed": 3, "format_name": "text"}, 'format: "rows" -> "text"'),
    ):
        with pytest.raises(UserError, match=f"begun release of another command.*{difference}.*Choose another --to"):
            pack(source, str(to), 1, **flags)
    with pytest.raises(UserError, match="num_shards"):
        pack(source, str(to), 2, seed=3)
    (to / BEGUN).unlink()
    with pytest.raises(UserError, match="is not empty"):
        pack(source, str(to), 1, seed=3)
    assert {**files(to), BEGUN: before[BEGUN]} == before


@pytest.mark.parametrize("source", ["run"], indirect=True)
def test_a_pack_that_fails_before_its_first_shard_leaves_nothing(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(0, monkeypatch)
    with pytest.raises(Stopped):
        pack(source, str(tmp_path / "to"), 1)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("source", ["run", "mixture"], indirect=True)
def test_progress_is_told_at_once(source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert pack(source, str(tmp_path / "to"), 1) == 0
    lines = [record.getMessage() for record in caplog.records]
    total = "7,000" if source.endswith(".toml") else "6,000"
    assert any(f"0 of {total} rows read" in line for line in lines)
    assert any("shards written" in line for line in lines)
    if source.endswith(".toml"):
        assert "0 of 10 chunks of the parts read" in lines[0]


def test_the_listing_of_many_lots_is_told(
    source_of_many: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert pack(source_of_many, str(tmp_path / "to"), 1) == 0
    lines = [record.getMessage() for record in caplog.records]
    assert "listing 10 lots of" in lines[0] and "10 of 10 shards listed" in lines[1]


@pytest.fixture
def source_of_many(run: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(release_run, "batch_work", batch_work_here)
    monkeypatch.setattr(release_run, "MANY_LOTS", 10)
    return run


def test_tasks_are_bounded_by_bytes_and_by_number() -> None:
    part = write.PART_BYTES
    tasks = write.in_tasks(((n, part / 3) for n in range(100)), 100, 2)
    assert [len(task) for task in tasks] == [3] * 33 + [1] and [n for task in tasks for n in task] == list(range(100))
    assert write.in_tasks([("large", 9.0 * part), ("small", 1.0)], 2, 1) == [["large"], ["small"]]
    assert max(map(len, write.in_tasks(((n, 1.0) for n in range(20_000)), 20_000, 2))) == write.MAX_ITEMS
    assert len(write.in_tasks(((n, 1.0) for n in range(80)), 80, 4)) == 4 * write.TASKS_PER_WORKER
