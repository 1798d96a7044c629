"""The bytes of a release depend on its rows alone, however they are cut, spread and merged; nothing grows with it."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.cluster import exchange, shuffle
from gristmill.cluster.batch_work import Workers, batch_work
from gristmill.cluster.exchange import Exchange, num_windows
from gristmill.cluster.shuffle import Layout, ShardFile, shard_writer, shuffle_keys, with_target
from gristmill.records.sealed import Altered, check_whole, write_sealed
from gristmill.records.stores.opening import open_store
from tests.batch_here import Here

SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), ("text", pa.string()), ("tags", pa.list_(pa.int8()))])


def rows_of(num: int, first: int = 0) -> pa.Table:
    numbers = range(first, first + num)
    texts = [None if n % 7 == 0 else "word " * (n % 11) for n in numbers]
    return pa.table([[f"{n:032x}" for n in numbers], texts, [[n % 3] * (n % 4) for n in numbers]], schema=SCHEMA)


def read(task: tuple[int, int, int]) -> pa.Table:
    first, num, num_shards = task
    table = rows_of(num, first)
    return with_target(table, shuffle_keys(table.column("id").to_pylist(), 5), num_shards)


def release(folder: Path, workers: Workers, num: int, piece: int, layout: Layout) -> dict[str, bytes]:
    seen: list[int] = []
    shards: list[ShardFile] = []
    tasks = [(at, min(piece, num - at), layout.num_shards) for at in range(0, num, piece)]
    work = Exchange(workers, open_store(str(folder)), layout, SCHEMA, seen.append, shards.append)
    wanted = range(layout.num_shards)
    work.run(read, tasks, wanted)
    assert sum(seen) == num * len(work.passes(wanted, len(tasks))) and sum(s.num_rows for s in shards) == num
    return {path.name: path.read_bytes() for path in sorted(folder.glob("train-*"))}


def whole_release(num: int, layout: Layout, folder: Path) -> dict[str, bytes]:
    """Each shard sorted as one table."""
    table = read((0, num, layout.num_shards))
    target = open_store(str(folder))
    for shard in range(layout.num_shards):
        rows = table.filter(pa.array(table.column(shuffle.SHARD).to_numpy() == shard))
        shard_writer(target, Layout(layout.num_shards), SCHEMA)(shard, [rows])
    return {path.name: path.read_bytes() for path in sorted(folder.glob("train-*"))}


@settings(deadline=None)
@given(
    st.integers(1, 400),
    st.integers(7, 90),
    st.builds(Layout, st.integers(1, 9), st.integers(1, 5)),
    st.integers(2, 6),
    st.sampled_from([1, 30, 10**6]),
    st.integers(1, 40),
)
def test_the_same_bytes_however_rows_travel(
    num: int, piece: int, layout: Layout, fan_out: int, most_pieces: int, group_rows: int
) -> None:
    with (
        mock.patch.object(exchange, "MAX_PIECES", most_pieces),
        pytest.MonkeyPatch.context() as patch,
        mock.patch.object(exchange, "FAN_OUT", fan_out),
        mock.patch.object(exchange, "PART_BYTES", 2000),
        mock.patch.object(shuffle, "ROW_GROUP_ROWS", group_rows),
    ):
        patch.setattr("gristmill.records.stores.local.os.fsync", lambda descriptor: None)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            assert release(folder / "a", Here(), num, piece, layout) == whole_release(num, layout, folder / "b")


def test_no_task_has_more_outputs_or_rows_than_stated(tmp_path: Path) -> None:
    class Counting(Here):
        most_outputs, most_bytes = 0, 0

        def start(self, function, *arguments, num_returns: int = 1):
            refs = super().start(function, *arguments, num_returns=num_returns)
            Counting.most_outputs = max(Counting.most_outputs, num_returns - 1)
            if num_returns > 1:
                Counting.most_bytes = max(Counting.most_bytes, sum(refs[0].value[1]))
            return refs

    with mock.patch.object(exchange, "FAN_OUT", 8), mock.patch.object(exchange, "PART_BYTES", 8000):
        release(tmp_path, Counting(), 4000, 40, Layout(40, 3))
    assert Counting.most_outputs == 8 and Counting.most_bytes <= 1.1 * 8000


def test_a_release_of_any_size_has_bounded_references() -> None:
    """On paper: 4 TB of shards whose rows take 16 TB in memory."""
    num_shards, num_bytes = 16_000, 16e12
    num_tasks = int(num_bytes / exchange.PART_BYTES)
    work = Exchange(
        Here(), open_store("/nowhere"), Layout(num_shards, num_windows(num_bytes, num_shards)), SCHEMA, id, id
    )
    passes = work.passes(range(num_shards), num_tasks)
    assert [shard for groups in passes for group in groups for shard in group] == list(range(num_shards))
    assert len(passes) == 4 and max(map(len, passes)) * num_tasks <= exchange.MAX_PIECES
    assert max(len(group) * 4 for groups in passes for group in groups) <= exchange.FAN_OUT


def test_windows_follow_the_size_of_a_shard() -> None:
    part = exchange.PART_BYTES
    assert [num_windows(size, 1) for size in (0, part, part + 1, 10 * part)] == [1, 1, 2, 10]
    assert num_windows(4e12 * 4, 16_000) * part >= 4e12 * 4 / 16_000
    places = shuffle_keys([str(n) for n in range(40_000)], 0)
    counts = np.bincount(Layout(1, 7).window(places), minlength=7)
    assert len(counts) == 7 and counts.min() > 0.9 * 40_000 / 7
    assert (np.diff(Layout(1, 7).window(np.sort(places))) >= 0).all()


def test_a_ray_writes_the_bytes_that_this_process_writes(tmp_path: Path, ray_session: None) -> None:
    here = release(tmp_path / "here", Here(), 3000, 170, Layout(6, 2))
    with mock.patch.object(exchange, "FAN_OUT", 5), batch_work(open_store(str(tmp_path))) as workers:
        assert release(tmp_path / "ray", workers, 3000, 170, Layout(6, 2)) == here
        assert list(workers.ordered(len, ["a", "bb", "ccc"] * 9)) == [1, 2, 3] * 9
        assert sorted(workers.results(len, ["a", "bb", "ccc"])) == [("a", 1), ("bb", 2), ("ccc", 3)]


@pytest.mark.parametrize("at", [0, 10, 4000, -300, -1])
def test_an_altered_byte_of_a_shard_is_seen(at: int) -> None:
    data = bytearray(write_sealed(rows_of(2000), 512))
    check_whole(bytes(data))
    data[at] ^= 1
    with pytest.raises((Altered, ValueError, OSError)):
        check_whole(bytes(data))
    with pytest.raises(Altered):
        sink = pa.BufferOutputStream()
        pq.write_table(rows_of(10), sink)
        check_whole(sink.getvalue().to_pybytes())
