"""Status tells a living driver from a dead one, and a watcher sees a run to its end."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.jobs.status import watch as module
from gristmill.jobs.status.command import describe
from gristmill.jobs.status.watch import Watcher
from gristmill.records.output import ledger, manifest
from gristmill.records.output.events import Events
from gristmill.records.output.lease import NAME as LEASE
from gristmill.records.output.lease import Lease, is_alive
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import Summary
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT, gristmill
from tests.outputs import PATIENCE_S, wait_for_commits
from tests.recipes import canned

SLOW = {"generator": {"seconds_per_ask": 0.02}}
LITERALS = {"name": "far", "lot_size": 32, "limits": {"asks": 640}, "stages": []}


def popen(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gristmill", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_killed_driver_is_not_running_and_its_watcher_ends(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    run = popen("produce", canned(tmp_path, **SLOW), "--out", out)
    wait_for_commits(out, 1, run)
    found = describe(out)
    assert (found["state"], found["alive"], found["said"]) == ("running", True, "running")
    assert found["driver"] == f"process {run.pid} on {socket.gethostname()}"
    run.send_signal(signal.SIGSTOP)  # a watcher takes seconds to start, in which the run would come to its end
    watching = popen("status", out, "--watch")
    assert watching.stdout is not None
    first = watching.stdout.readline()
    assert first.startswith("running  ") and "kept" in first and "rows/s" in first
    run.send_signal(signal.SIGKILL)
    run.wait()
    rest, _ = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 0 and "canned-test: stopped" in rest and f"process {run.pid}" in rest
    found = json.loads(gristmill("status", out, "--json").stdout)
    assert (found["state"], found["alive"]) == ("stopped", False)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["state"] == "running"
    done = gristmill("produce", str(tmp_path / "recipe.toml"), "--out", out, "--set", "generator.seconds_per_ask=0")
    assert done.returncode == 0, done.stderr
    assert "complete" in gristmill("status", out).stdout


def test_a_watcher_sees_a_run_to_its_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = popen("produce", canned(tmp_path, num_asks=320, generator={"seconds_per_ask": 0.01}), "--out", str(out))
    wait_for_commits(str(out), 1, run)
    run.send_signal(signal.SIGSTOP)
    watching = popen("status", str(out), "--watch", "--json")
    assert watching.stdout is not None
    first = watching.stdout.readline()
    run.send_signal(signal.SIGCONT)
    rest, _ = watching.communicate(timeout=PATIENCE_S)
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert watching.returncode == 0
    looks = [json.loads(text) for text in (first + rest).splitlines()]
    assert [look["state"] for look in looks] == ["running"] * (len(looks) - 1) + ["complete"]
    rows = [look["totals"]["asks"] for look in looks]
    assert rows == sorted(rows) and rows[-1] == 320 and len(rows) >= 2
    stored = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert looks[-1]["totals"] == stored["totals"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_a_watcher_on_a_terminal_ends_at_ctrl_c(tmp_path: Path) -> None:
    store = far_run(tmp_path)
    stop = threading.Event()
    beating = threading.Thread(target=beat, args=(store, stop))
    beating.start()
    master, slave = os.openpty()
    command = [sys.executable, "-m", "gristmill", "status", str(tmp_path), "--watch"]
    watching = subprocess.Popen(command, cwd=ROOT, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    try:
        seen = b""
        while b"committed" not in seen:
            seen += os.read(master, 4096)
        watching.send_signal(signal.SIGINT)
        # A terminal that nobody reads fills up, and whoever writes to it waits for ever.
        with suppress(OSError):  # the other end is closed: the watcher has ended
            while part := os.read(master, 4096):
                seen += part
        assert watching.wait(60) == 0
        assert b"Traceback" not in seen
    finally:
        watching.kill()
        stop.set()
        beating.join()
        os.close(master)


def far_run(folder: Path, silent_s: float = 0.0) -> Store:
    """An output that a driver on another host writes, as far as its lease and manifest tell."""
    store = open_store(str(folder))
    book = Manifest("0" * 32, LITERALS, {})
    book.begin()
    book.starts[0]["started"] = (datetime.now(UTC) - timedelta(seconds=silent_s)).isoformat(timespec="seconds")
    book.save(store)
    put_lease(store, 1)
    return store


def put_lease(store: Store, beat: int) -> None:
    held = {"token": "far", "host": "elsewhere", "pid": 1, "beat": beat, "process_start": "0"}
    store.put(LEASE, json.dumps(held).encode())


def beat(store: Store, stop: threading.Event) -> None:
    number = 1
    while not stop.wait(0.1):
        number += 1
        put_lease(store, number)


def test_a_driver_elsewhere_is_told_by_its_last_sign_of_life(tmp_path: Path) -> None:
    store = far_run(tmp_path)
    found = describe(str(tmp_path))
    assert (found["state"], found["alive"], found["said"]) == ("running", None, "running")
    far_run(tmp_path, silent_s=725)
    found = describe(str(tmp_path))
    assert (found["state"], found["alive"]) == ("running", None)
    assert found["said"].startswith("running? (last sign of life 12 min")
    assert "running? (last sign of life 12 min" in gristmill("status", str(tmp_path)).stdout
    log = Events(store, "0" * 32, 1)
    log.note("progress")
    log.flush()
    assert describe(str(tmp_path))["said"] == "running"
    store.delete(LEASE)
    assert describe(str(tmp_path))["state"] == "stopped"
    store.put(LEASE, b"{torn")
    assert describe(str(tmp_path))["said"] == "running"


def test_a_watcher_believes_the_beat_of_a_driver_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "dead_s", lambda held: 1.0)
    store = far_run(tmp_path, silent_s=725)
    watcher = Watcher(store)
    assert watcher.look().life.word.startswith("running?")
    for number in range(2, 8):
        time.sleep(0.3)
        put_lease(store, number)
        life = watcher.look().life
        assert (life.word, life.alive) == ("running", True)
    time.sleep(1.2)
    life = watcher.look().life
    assert (life.state, life.alive) == ("stopped", False)


def test_liveness_of_leases(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    lease = Lease(store)
    lease.acquire()
    held = json.loads(store.read(LEASE))
    assert is_alive(held) is True
    assert is_alive({**held, "process_start": "1"}) is False  # the pid has been given to another process
    assert is_alive({**held, "pid": 2**22 + 1}) is False
    assert is_alive({**held, "host": "elsewhere"}) is None
    assert is_alive({"host": held["host"]}) is None
    lease.release()


def test_a_view_tells_rates_engines_and_the_time_left(tmp_path: Path) -> None:
    store = far_run(tmp_path)
    log = Events(store, "0" * 32, 1)
    log.note("start", num_lots=0, num_asks=320, replicas=2, nodes=1)
    pulse = {"in_flight": {"making": 4, "ready": 1}, "engines_open": 1, "engines_loading": 1, "commit_lag_s": 2.5}
    log.note("progress", **pulse, cost=0.25)
    log.flush()
    watcher = Watcher(store)
    watcher.look()
    book = manifest.load(store)
    assert book is not None
    book.totals = Summary(num_lots=2, asks=64, kept=40, rejected={"rules:short": 24}, tokens_out=6400, kept_tokens=4000)
    book.save(store)
    time.sleep(0.5)
    view = watcher.view(watcher.look())
    rates, left_s = view.rates, view.left_s
    assert 0 < rates.asks <= 128 and rates.tokens == pytest.approx(100 * rates.asks, rel=0.1)
    assert view.share == pytest.approx(0.2)  # 64 of the 320 asks that the start tells, less than limits.asks
    assert left_s is not None and left_s == pytest.approx((320 - 64) / rates.asks, rel=0.1)
    shown = io.StringIO()
    Console(file=shown, width=100).print(view.panel())
    for text in (view.line(), shown.getvalue()):
        for part in (
            "20%",
            "64",
            "40 kept + 24 rejected",
            "5 lots (4 making, 1 ready)",
            "1 open, 1 loading",
            "2.5 s",
            "ETA",
        ):
            assert part in text


def test_a_watcher_counts_as_the_ledger_does(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert gristmill("produce", canned(tmp_path, num_asks=320), "--out", str(out)).returncode == 0
    store = open_store(str(out))
    table = json.loads((out / "manifest.json").read_text())
    whole = table["totals"]
    table |= {"state": "running", "totals": {}}
    (out / "manifest.json").write_text(json.dumps(table))
    put_lease(store, 1)
    hidden = {p.name: p.read_bytes() for p in sorted((out / "kept").iterdir())[4:]}
    for name in hidden:
        (out / "kept" / name).unlink()
    watcher = Watcher(store)
    assert watcher.look().totals.num_lots == 4
    for name, data in hidden.items():
        (out / "kept" / name).write_bytes(data)
    end = time.monotonic() + 30
    while (totals := watcher.look().totals).num_lots < 10:
        assert time.monotonic() < end
        time.sleep(0.05)
    book = manifest.load(store)
    assert book is not None
    assert totals.literals() == ledger.totals(store, book, ledger.committed(store, book)).literals() == whole


def test_watching_nothing(tmp_path: Path) -> None:
    done = gristmill("status", str(tmp_path), "--watch")
    assert done.returncode == 2 and "no manifest.json there" in done.stderr
