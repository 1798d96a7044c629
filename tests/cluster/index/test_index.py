"""The dedup index as it runs: real actors, real stores, and what befalls both; verdicts are those of a plain pass."""

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gristmill.cluster.errors import RunFailed
from gristmill.cluster.index import snapshots
from gristmill.cluster.index.rebuild import ClaimSource
from gristmill.records.output.shards import KEPT, shard_name
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store
from gristmill.stages.dedup.bandindex import NOBODY, UNKNOWN, resolve
from gristmill.stages.dedup.bloomindex import BloomIndex
from gristmill.stages.dedup.texts import DedupSpec
from tests.cluster.index.claims import SPEC, Claimer, Lots, NearLots
from tests.profiles import scaled

BLOOM = replace(SPEC, index="bloom", bloom_rows=600, bloom_error=0.05)


@pytest.fixture(scope="module", autouse=True)
def local_ray(ray_session: None, s3_server: dict[str, str]) -> Iterator[None]:
    """A Ray whose workers can reach the test bucket, as this process can."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.items():
            patch.setenv(name, value)
        yield


def bloom_pass(lots: Lots) -> list[int]:
    """Lot by lot with all filters in one place: what any number of actors must answer, whatever befalls them."""
    index = BloomIndex(lots.dedup.bands, BLOOM.bloom_rows or 0, BLOOM.bloom_error or 0, lots.dedup.bands)
    verdicts: list[int] = []
    for lot in range(lots.num_lots):
        result = lots.result(lot)
        assert result.keys is not None
        found = np.where(result.alive, index.query(result.keys), NOBODY)
        owners = resolve(result.keys, found, result.alive, len(verdicts))
        kept = np.flatnonzero(result.alive & (owners == NOBODY))
        index.insert(result.keys[kept], len(verdicts) + kept, is_settled=True)
        verdicts += owners.tolist()
    return verdicts


def damage(store: Store, rng: random.Random, num_committed: int) -> None:
    """What disks, people and other runs do to snapshots."""
    names = [e.name for e in store.list("index/")]
    if not names:
        return
    name = rng.choice(names)
    data = bytearray(store.read(name))
    kind = rng.randrange(6)
    if kind == 0:
        store.put(name, bytes(data[: rng.randrange(len(data))]))
    elif kind == 1:
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        store.put(name, bytes(data))
    elif kind == 2:
        store.delete(name)
    elif kind == 3:
        store.put(name, store.read(rng.choice(names)))
    elif kind == 4:
        store.put(snapshots.name_of(rng.randrange(num_committed + 1), num_committed + rng.randrange(1, 9)), bytes(data))
    else:
        store.put(name, bytes(data).replace(b"5eed", b"dead"))


def befall(claimer: Claimer, rng: random.Random) -> None:
    """Claim and commit all lots, with whatever may happen on the way."""
    claimer.start(rng.randrange(1, 4), rng.choice([0, 2, 7]))
    while claimer.num_committed < claimer.lots.num_lots:
        claimer.claim(rng.randrange(6), together=rng.random() < 0.5)
        claimer.commit(rng.randrange(5))
        event = rng.random()
        if event < 0.15:
            claimer.rewind(rng.randint(claimer.num_committed, claimer.num_claimed))
        elif event < 0.25:
            claimer.kill_actor(rng)
        elif event < 0.35:
            if rng.random() < 0.5:
                claimer.crash()
            else:
                claimer.index.stop()
            for _ in range(rng.randrange(3)):
                damage(claimer.store, rng, claimer.num_committed)
            claimer.start(rng.randrange(1, 4), rng.choice([0, 2, 7]))
    claimer.index.stop()


def wait_for_snapshots(store: Store, count: int) -> None:
    """A driver that is gone in this test has left its thread behind, which still writes."""
    end = time.monotonic() + 60
    while len(snapshots.listed(store)) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


def check(claimer: Claimer) -> None:
    """The verdicts are those of a plain pass over what the lots held in the end."""
    lots, verdicts = claimer.lots, claimer.verdicts()
    if lots.dedup.is_exact:
        assert verdicts == lots.plain_pass()
        assert sum(v >= 0 for v in verdicts) > 50
        return
    assert verdicts == bloom_pass(lots)
    assert {UNKNOWN, NOBODY} < set(verdicts)
    assert all(verdicts[owner] == NOBODY for owner in verdicts if owner >= 0)  # a row that is named was kept


@pytest.mark.parametrize(("spec", "seed"), [(SPEC, 0), (BLOOM, 1)], ids=["exact", "bloom"])
def test_whatever_befalls_the_verdicts_are_those_of_a_plain_pass(spec: DedupSpec, seed: int, tmp_path: Path) -> None:
    claimer = Claimer(Lots(seed, spec, num_lots=25), LocalStore(str(tmp_path)))
    befall(claimer, random.Random(seed))
    check(claimer)


def test_whatever_befalls_an_index_by_meaning(tmp_path: Path) -> None:
    """Its actors share the rows: one that is lost is filled again with its own rows."""
    claimer = Claimer(NearLots(3, num_lots=25), LocalStore(str(tmp_path)))
    befall(claimer, random.Random(3))
    check(claimer)


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@settings(max_examples=scaled(25), phases=[Phase.generate])
@given(st.integers(2, 2**32 - 1), st.booleans())
def test_whatever_befalls_at_length(tmp_path_factory: pytest.TempPathFactory, seed: int, is_exact: bool) -> None:
    claimer = Claimer(Lots(seed, SPEC if is_exact else BLOOM), LocalStore(str(tmp_path_factory.mktemp("out"))))
    befall(claimer, random.Random(seed))
    check(claimer)


def test_a_killed_process_is_made_anew_alone(tmp_path: Path) -> None:
    claimer = Claimer(Lots(5), LocalStore(str(tmp_path)))
    claimer.start(2, 4)
    claimer.claim(8, together=False)
    claimer.commit(6)
    children = psutil.Process().children(recursive=True)
    shards = [p for p in children if p.cmdline() and p.cmdline()[0].startswith("ray::BandShard")]
    assert len(shards) == 2
    os.kill(shards[0].pid, signal.SIGKILL)
    claimer.claim(32, together=True)
    assert any("the dedup index was lost and is built again" in word for word in claimer.log.lines)
    assert shards[1].is_running() and not shards[0].is_running()
    check(claimer)
    tables = claimer.lots.dedup.new_index(claimer.lots.dedup.bands).nbytes
    assert claimer.index.nbytes == tables  # small enough not to have grown
    assert claimer.index.num_rows == sum(v == NOBODY for v in claimer.verdicts()) - claimer.num_dead()
    claimer.index.stop()


def test_an_index_that_is_lost_too_often_says_what_to_change(tmp_path: Path) -> None:
    claimer = Claimer(Lots(5), LocalStore(str(tmp_path)))
    claimer.start(2, 0)
    claimer.claim(8, together=True)
    num_rows, claimer.index.max_retries = claimer.index.num_rows, 0
    claimer.kill_actor(random.Random(0))
    with pytest.raises(
        RunFailed, match=f"lost 1 times .* holds {num_rows} rows with cluster.index_actors = 2: if memory"
    ):
        claimer.claim(1, together=True)
    claimer.index.stop()


def test_a_snapshot_holds_the_committed_lots_and_nothing_else(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    claimer = Claimer(Lots(6), store)
    claimer.start(1, 3)
    claimer.claim(20, together=True)
    claimer.commit(11)
    claimer.index.flush()
    names = [e.name for e in store.list("index/")]
    assert [snapshots.lots_of(name) for name in names] == [(0, 3), (3, 6), (6, 9), (9, 11)]
    whose = snapshots.identity(claimer.lots.plan, claimer.lots.dedup)
    source = ClaimSource(store, claimer.lots.plan, claimer.lots.dedup, whose, 3)
    for name in names:
        first, stop = snapshots.lots_of(name) or (0, 0)
        keys, owners = snapshots.decode(store.read(name), whose, first, stop)
        expected = source.from_shards(range(first, stop))
        np.testing.assert_array_equal(keys, expected[0])
        np.testing.assert_array_equal(owners, expected[1])
        assert len(owners) and store.read(name) == snapshots.encode(whose, first, stop, expected)


@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.nightly)])
def test_a_resume_reads_only_the_shards_after_the_snapshots(where: str, tmp_path: Path, request) -> None:
    uri = str(tmp_path) if where == "local" else f"{request.getfixturevalue('s3')}/index-{tmp_path.name}"
    store = open_store(uri)
    claimer = Claimer(Lots(7), store)
    claimer.start(2, 8)
    claimer.claim(30, together=True)
    claimer.commit(20)
    claimer.crash()  # lots 16 to 19 are in no snapshot
    wait_for_snapshots(store, 2)
    kept = {lot: store.read(shard_name(KEPT, lot)) for lot in range(20)}
    for lot in range(16):
        store.delete(shard_name(KEPT, lot))
    claimer.start(3, 8)
    assert any("(16 of 20 lots from snapshots)" in word for word in claimer.log.lines)
    store.put(f"index/claims-{8:08d}-{16:08d}.bin", b"torn")
    with pytest.raises(RunFailed, match="the index cannot be read back"):
        claimer.start(1, 8)  # it does need the shards that are gone
    for lot, data in kept.items():
        store.put(shard_name(KEPT, lot), data)
    claimer.start(2, 8)
    assert any("index/claims-00000008-00000016.bin: not a snapshot" in word for word in claimer.log.lines)
    claimer.start(1, 8)  # the torn one was written anew
    assert "(20 of 20 lots from snapshots)" in claimer.log.lines[-1]
    claimer.claim(40, together=True)
    check(claimer)
    claimer.index.stop()


def test_snapshots_beyond_the_committed_lots_are_removed_at_once(tmp_path: Path) -> None:
    """Somebody cut the output back to four lots; other rows will stand in the places of the rest."""
    claimer = Claimer(Lots(8), LocalStore(str(tmp_path)))
    claimer.start(1, 3)
    claimer.claim(9, together=True)
    claimer.commit(9)
    claimer.crash()
    wait_for_snapshots(claimer.store, 3)
    for lot in range(4, 9):
        claimer.store.delete(shard_name(KEPT, lot))
        claimer.store.delete(f"rejected/part-{lot:08d}.parquet")
        claimer.lots.remake(lot)
    claimer.num_committed = 4
    claimer.start(1, 3)
    assert [snapshots.lots_of(e.name) for e in claimer.store.list("index/")] == [(0, 3), (3, 4)]
    claimer.claim(40, together=True)
    claimer.commit(40)
    claimer.start(1, 3)
    check(claimer)


def test_without_snapshots_or_a_place_for_them_the_run_goes_on(tmp_path: Path) -> None:
    claimer = Claimer(Lots(9), LocalStore(str(tmp_path)))
    claimer.start(1, 0)
    claimer.claim(9, together=True)
    claimer.commit(9)
    claimer.crash()
    assert not (tmp_path / "index").exists()
    (tmp_path / "index").write_text("a file where the folder should be")
    claimer.start(2, 2)
    assert any("cannot be written" in word for word in claimer.log.lines)
    claimer.claim(40, together=True)
    claimer.commit(40)
    claimer.index.flush()
    assert any("no snapshot of lots 9 to 10" in word for word in claimer.log.lines)
    check(claimer)


def test_filters_that_hold_too_much_say_so_and_end_the_run(tmp_path: Path) -> None:
    spec = replace(BLOOM, bloom_rows=100, bloom_error=0.01)
    claimer = Claimer(Lots(10, spec), LocalStore(str(tmp_path)))
    claimer.start(2, 4)
    with pytest.raises(RunFailed, match=r"made for 100 \(bloom_rows\).*larger bloom_rows"):
        for _ in range(40):
            claimer.claim(1, together=False)
            claimer.commit(1)
    assert any("rows are in Bloom filters made for 100" in word for word in claimer.log.lines)
    ended_at = claimer.num_claimed
    assert 4 < ended_at < 40
    again = Claimer(claimer.lots, LocalStore(str(tmp_path / "again")))
    again.start(1, 0)  # another width, other snapshots, lots claimed ahead: the same end
    again.claim(ended_at, together=True)
    with pytest.raises(RunFailed):
        again.claim(1, together=True)


def test_lots_claimed_together_must_follow_one_another(tmp_path: Path) -> None:
    claimer = Claimer(Lots(11), LocalStore(str(tmp_path)))
    claimer.start(1, 0)
    assert claimer.sequencer and claimer.sequencer.claim([]) == []
    with pytest.raises(ValueError, match="must follow one another"):
        claimer.sequencer.claim([(lot, claimer.lots.result(lot)) for lot in (0, 2)])


def test_probable_duplicates_are_called_so(tmp_path: Path) -> None:
    claimer = Claimer(Lots(12, BLOOM), LocalStore(str(tmp_path)))
    claimer.start(1, 0)
    claimer.claim(20, together=False)
    claimer.commit(20)
    reasons = set()
    for entry in claimer.store.list("rejected/"):
        table = pq.read_table(claimer.store.open(entry.name))
        for reason, other in zip(table.column("reject").to_pylist(), table.column("duplicate_of").to_pylist()):
            reasons.add(reason)
            assert (reason == "dedup:duplicate") == (other is not None)
    assert reasons == {"rules:bad", "dedup:duplicate", "dedup:probable_duplicate"}
