"""The checks of the kill tests see what they are for: lost, doubled, altered and rewritten."""

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.chaos.nodes import kill_tree
from tests.chaos.plan import KINDS, kills
from tests.chaos.verdict import judge
from tests.chaos.watch import Watch, bucket_look, folder_look
from tests.conftest import gristmill
from tests.recipes import canned
from tests.s3server import S3Server


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = gristmill("produce", canned(folder, 128, 32), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture
def other(output: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(output, tmp_path / "out"))


def test_the_same_output_is_right(output: Path, other: Path) -> None:
    verdict = judge(str(other), str(output))
    assert verdict.wrong == [] and verdict.lost == [] and verdict.duplicated == []
    assert verdict.num_rows == 128 and verdict.num_shards == 8


def test_a_lost_lot_is_seen_row_by_row(output: Path, other: Path) -> None:
    (other / "kept/part-00000003.parquet").unlink()
    verdict = judge(str(other), str(output))
    assert verdict.lost and {lot for lot, _ in verdict.lost} == {3}
    assert "kept/part-00000003.parquet is missing" in verdict.wrong
    assert any(line.startswith("audit: exit 1") for line in verdict.wrong)
    assert any("the manifest's totals are not the rows" in line for line in verdict.wrong)


def test_a_lot_that_is_there_twice_is_seen_row_by_row(output: Path, other: Path) -> None:
    shutil.copy(other / "kept/part-00000001.parquet", other / "kept/part-00000004.parquet")
    verdict = judge(str(other), str(output))
    assert verdict.duplicated and {lot for lot, _ in verdict.duplicated} == {1}
    assert "kept/part-00000004.parquet is too many" in verdict.wrong


def test_other_bytes_with_the_same_rows_are_seen(output: Path, other: Path) -> None:
    import pyarrow.parquet as pq

    path = other / "rejected/part-00000002.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")
    verdict = judge(str(other), str(output))
    assert "rejected/part-00000002.parquet has other bytes" in verdict.wrong
    assert verdict.lost == [] and verdict.duplicated == []


def test_a_second_put_of_the_same_bytes_is_seen(tmp_path: Path) -> None:
    server = S3Server(tmp_path)
    server.start()
    try:
        client = server.client()
        with Watch(bucket_look(server, "run")) as watch:
            for lot in range(3):
                client.put_object(Bucket="mill", Key=f"run/kept/part-{lot:08d}.parquet", Body=b"lot")
            watch.settle()
            assert watch.num_committed == 3 and watch.wrong == []
            client.put_object(Bucket="mill", Key="run/kept/part-00000001.parquet", Body=b"lot")
            watch.settle()
            watch.settle()
            assert watch.wrong == ["part-00000001.parquet was put again"]
            client.delete_object(Bucket="mill", Key="run/kept/part-00000002.parquet")
            watch.settle()
            watch.settle()
            assert "part-00000002.parquet is gone" in watch.wrong
    finally:
        server.kill()


def test_a_hole_between_lots_is_seen(tmp_path: Path) -> None:
    watch = Watch(folder_look(tmp_path))
    watch.take({"part-00000000.parquet": "a", "part-00000002.parquet": "c"})
    watch.take({"part-00000000.parquet": "a", "part-00000001.parquet": "b", "part-00000002.parquet": "c"})
    assert watch.wrong == []  # a listing that went on while lot 1 came is no hole
    for _ in range(2):
        watch.take({"part-00000000.parquet": "a", "part-00000002.parquet": "c"})
    assert any("lots are no prefix" in line for line in watch.wrong)


def test_the_seed_draws_the_kills_and_every_kind_comes_as_often() -> None:
    drawn = kills(50, 7, KINDS, 60)
    assert drawn == kills(50, 7, KINDS, 60) != kills(50, 8, KINDS, 60)
    times = Counter(kill.kind for kill in drawn)
    assert set(times) == set(KINDS) and max(times.values()) - min(times.values()) <= 1


def test_a_tree_of_processes_is_killed_whole_though_it_starts_others_all_the_time() -> None:
    length = str(300 + secrets.randbelow(10**9) / 10**9)  # tells our sleepers from any others
    code = f"while True: subprocess.Popen(['sleep', '{length}'], start_new_session=True); time.sleep(0.01)"
    root = subprocess.Popen([sys.executable, "-c", f"import subprocess, time\n{code}"])
    try:
        tree = psutil.Process(root.pid)
        while len(tree.children(recursive=True)) < 5:
            time.sleep(0.01)
        kill_tree(tree)
        assert root.wait() == -signal.SIGKILL
    finally:
        root.kill()
    assert not sleepers(length)


def sleepers(length: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline", "status"]) if length in (p.info["cmdline"] or [])]
