"""Whole runs against the proxy: faults, a lost replica, a server that goes down and comes back, no leak of keys."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests import session
from tests.engines.endpoint.proxy import KEY, MODEL, Proxy, answer_of
from tests.recipes import write
from tests.session import gristmill

NUM_ASKS = 192


def recipe_of(folder: Path, server: Proxy, **generator: Any) -> str:
    return write(
        folder / "endpoint.toml",
        {
            "name": "endpoint-test",
            "lot_size": 24,
            "source": {"items": [f"ask {number}" for number in range(NUM_ASKS)]},
            "generator": {
                "kind": "endpoint",
                "base_url": server.url,
                "model": MODEL,
                "api_key_env": "GM_RUN_KEY",
                "timeout_s": 2.0,
                "price_out": 1000.0,
                **generator,
            },
            "method": {"kind": "prompt", "template": "{text}"},
            "stages": [{"kind": "finish"}],
            "cluster": {"num_cpus": 2},
        },
    )


def texts_of(out: Path) -> list[str]:
    return [row["text"] for path in sorted((out / "kept").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def events_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((out / "events").iterdir()) for line in path.read_text().splitlines()]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set where the run starts and not on the nodes, whose processes are older."""
    session.start_ray()
    monkeypatch.setenv("GM_RUN_KEY", KEY)
    yield KEY


def kill_replica(server: Proxy, num_calls: int, calls_at_kill: list[int]) -> None:
    """Kill the actor that sends the calls, when so many have come; note how many had."""
    while len(server.bodies) < num_calls:
        time.sleep(0.01)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "ray::Replica" in " ".join(process.cmdline()) and is_client(process, server):
                os.kill(process.pid, signal.SIGKILL)
                calls_at_kill.append(len(server.bodies))


def is_client(process: psutil.Process, server: Proxy) -> bool:
    """Whether a process has a connection to the server."""
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    return any(each.raddr and each.raddr.port == port for each in process.net_connections())


def test_a_run_outlives_faults_and_its_replica(tmp_path: Path, key: str) -> None:
    faults = {7: "429", 21: "500", 33: "cut", 47: "html", 60: "hang", 90: "json", 150: "repeat"}
    out, calls_at_kill = tmp_path / "out", list[int]()
    with Proxy(script=lambda number, body: faults.get(number), latency_s=lambda _: 0.2, key=key, hang_s=5) as server:
        killer = threading.Thread(target=kill_replica, args=(server, 100, calls_at_kill))
        killer.start()
        done = gristmill("produce", recipe_of(tmp_path, server), "--out", str(out))
        killer.join()
    assert done.returncode == 0, done.stderr
    assert "generator: an endpoint promises no answer twice" in done.stderr
    texts = texts_of(out)
    assert len(texts) == NUM_ASKS
    seeds = {json.dumps(body["messages"]): body for body in server.bodies}
    assert texts == [answer_of(seeds[json.dumps([{"role": "user", "content": f"ask {n}"}])]) for n in range(NUM_ASKS)]
    lost = Counter(event["lost"] for event in events_of(out) if event["event"] == "retry")
    assert set(lost) == {"replica"}  # no ask is blamed
    assert not [event for event in events_of(out) if event["event"] == "poison"]
    calls = Counter(json.dumps(body["messages"]) for body in server.bodies)
    assert max(calls.values()) <= 3
    # All calls before the kill were in flight, or answered within the last `flush_s`: at most these are made again.
    assert len(server.bodies) <= NUM_ASKS + sum(server.faults.values()) + calls_at_kill[-1]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["starts"][-1]["engines"]["facts"]["generator"]["endpoint"] == server.url
    assert manifest["starts"][-1]["device_s"] == 0.0  # an endpoint holds no device
    assert "another run has other rows" in (out / "report.html").read_text()
    leaks = [path for path in out.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert not leaks and key not in done.stdout + done.stderr
    assert not leaks_of_ray(key)


def leaks_of_ray(key: str) -> list[str]:
    """Files and records of Ray that hold the key."""
    import ray
    from ray._private import state

    folder = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[union-attr]
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 2**26]
    leaks = [str(path) for path in files if key.encode() in path.read_bytes()]
    return leaks + [
        name for name, value in {"actors": state.actors(), "jobs": state.jobs()}.items() if key in str(value)
    ]


def test_a_server_that_stays_down_stops_the_run_and_the_same_command_resumes(tmp_path: Path, key: str) -> None:
    out, is_down = tmp_path / "out", [True]

    def script(number: int, body: Any) -> str | None:
        return "503" if is_down[0] and number >= 100 else None

    with Proxy(script=script, latency_s=lambda _: 0.02, key=key, counts_probes=True) as server:
        recipe = recipe_of(tmp_path, server, retry_s=1.0)
        done = gristmill("produce", recipe, "--out", str(out))
        assert done.returncode == 2
        last = done.stderr.strip().splitlines()[-1]
        assert f"making: endpoint {server.url} (model 'tiny-1'): no answer for" in last and "lot " in last
        assert "Traceback" not in done.stderr
        assert not [event for event in events_of(out) if event["event"] in ("retry", "poison")]
        is_down[0] = False
        done = gristmill("produce", recipe, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert len(texts_of(out)) == NUM_ASKS


def test_a_wrong_key_stops_the_run_before_its_first_ask(tmp_path: Path, key: str) -> None:
    with Proxy(key="another-key-0123456789") as server:
        done = gristmill("produce", recipe_of(tmp_path, server), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "the key is not accepted" in done.stderr and "check the variable GM_RUN_KEY" in done.stderr
    assert not server.bodies
    assert key not in done.stdout + done.stderr
