"""The checks of the kill tests see what they are for: lost, doubled, altered and rewritten."""

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from gristmill.records.stores.opening import open_store
from tests.chaos.driver import Driver, Start, WrongEnd, elsewhere
from tests.chaos.nodes import kill_tree
from tests.chaos.plan import KINDS, SHAPES, WAKES, Kill, is_local, kills, wake
from tests.chaos.report import costs, ends
from tests.chaos.rival import REASONS
from tests.chaos.run import Struck
from tests.chaos.source import SourceFile
from tests.chaos.verdict import Verdict, judge
from tests.chaos.watch import Watch, bucket_look, folder_look
from tests.conftest import gristmill
from tests.faults import wait_until
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

    path = sorted((other / "rejected").iterdir())[2]
    pq.write_table(pq.read_table(path), path, compression="none")
    verdict = judge(str(other), str(output))
    assert f"rejected/{path.name} has other bytes" in verdict.wrong
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


def test_a_second_put_into_a_folder_is_seen(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    watch, names = Watch(folder_look(tmp_path)), [f"kept/part-{lot:08d}.parquet" for lot in range(3)]
    look = folder_look(tmp_path)

    def take() -> None:
        for _ in range(2):
            watch.take(look() or {})

    take()
    assert watch.seen == {}
    for name in names:
        store.put(name, b"lot", if_absent=True)
    (tmp_path / "kept" / ".tmp-0123").write_text("half")
    take()
    assert watch.num_committed == 3 and watch.wrong == []
    store.put(names[1], b"lot")
    take()
    assert watch.wrong == ["part-00000001.parquet was put again"]
    store.delete(names[2])
    take()
    assert "part-00000002.parquet is gone" in watch.wrong


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


def test_each_shape_is_met_with_a_folder_and_with_s3_and_each_driver_is_woken_at_each_moment() -> None:
    runs = range(1, 2 * len(SHAPES) + 1)
    assert {((run - 1) % len(SHAPES), is_local(run)) for run in runs} == {
        (shape, local) for shape in range(len(SHAPES)) for local in (True, False)
    }
    assert {wake(kill) for kill in kills(100, 1, KINDS, 60) if kill.kind == "pause"} == set(WAKES)


GOOD = "gristmill: /out has been taken over by another driver (process 7 on b); this one stops\n"


@pytest.mark.parametrize(
    ("code", "log", "is_right"),
    [
        (2, f"[6 s] 2 lots\n{GOOD}", True),
        (0, f"[6 s] 2 lots\n{GOOD}", False),  # it went on to the end
        (2, "gristmill: no space left\n", False),
        (2, f"{GOOD}gristmill: and more\n", False),
        (2, f"Traceback (most recent call last):\n{GOOD}", False),
        (-9, "", False),
    ],
)
def test_a_driver_that_has_to_stop_says_why_in_one_line(tmp_path: Path, code: int, log: str, is_right: bool) -> None:
    (tmp_path / "log").write_text(log)
    start = Start(0.0, tmp_path / "log", 1.0, code)
    if is_right:
        return start.check_line(REASONS)
    with pytest.raises(WrongEnd):
        start.check_line(REASONS)


def test_a_newcomer_that_lost_a_put_is_told_in_the_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "gristmill: /out/kept/part-00000003.parquet is already there: another run has written it\n"
    )
    first, newcomer = Start(0.0, tmp_path / "log", 9.0, 2), Start(2.0, tmp_path / "log", 9.0, 2)
    kill = Kill(1, "pause", 1, 0.5, 0.1, 0.0)
    for rival, num_told in ((newcomer, 1), (Start(2.0, tmp_path / "log", 9.0, 0), 0)):
        struck = Struck(kill, 1, 1.0, 3, "start 1", 0, "ended 1.0 s after it was woken, exit 2: ...", rival)
        found = costs([struck], [0.5, 3.0, 4.0], [first, rival], 4, Verdict())
        assert found[0].next_s == 2.0 and found[0].restart_s == 1.0
        assert ends(found).count("pause: the newcomer lost a put") == num_told


def test_a_paused_driver_is_beside_the_next_one_and_both_are_ended(tmp_path: Path) -> None:
    driver = Driver([], tmp_path)
    driver.command = [
        sys.executable,
        "-c",
        "import socket, time; print(socket.gethostname(), flush=True); time.sleep(600)",
    ]
    driver.go_on(0)
    first = driver.pause()
    stopped = psutil.Process(first._popen.pid)
    wait_until("the first is stopped", lambda: stopped.status() == psutil.STATUS_STOPPED)
    with suppress(RuntimeError):
        elsewhere()
        driver.host = "newcomer"
    driver.go_on(0)
    assert driver.lives and len(driver.starts) == 2
    if driver.host:
        wait_until("the newcomer is elsewhere", lambda: driver.starts[1].log.read_text() == "newcomer\n")
    first.wake()
    with pytest.raises(WrongEnd, match="the paused driver goes on"):
        first.wait(0.2)
    driver.end()
    assert not driver.lives and first._popen.returncode == -signal.SIGKILL


def test_the_source_is_replaced_at_the_same_size_and_restored(tmp_path: Path) -> None:
    source = SourceFile(tmp_path)
    before = source.path.read_bytes(), source.path.stat().st_ino
    source.replace()
    assert source.path.read_bytes() != before[0] and source.path.stat().st_size == len(before[0])
    source.restore()
    assert source.path.read_bytes() == before[0] and [p.name for p in tmp_path.iterdir()] == [source.path.name]


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
