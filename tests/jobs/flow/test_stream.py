"""A step that starts on the committed rows of the one before writes what it would write after its end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, gristmill
from tests.gated import WORDS
from tests.jobs.flow.flows import chain, flow_file
from tests.outputs import PATIENCE_S, kept_hashes, num_committed, wait_for_commits

STREAMED = {"texts": {"stream": True}, "judged": {"stream": True}}
NAMES = ("topics", "texts", "judged")
OPEN_LOTS = 20  # of the 24 of the first step; the others wait for the gate


def gated(folder: Path, is_open: bool = False, **changes: Any) -> list[dict[str, Any]]:
    """The chain, whose first step makes its last lots when the file `open` is in `folder`."""
    folder.mkdir(exist_ok=True)
    if is_open:
        open_gate(folder)
    fields = [*(f"field {number}" for number in range(4 * OPEN_LOTS)), *[WORDS] * 16]
    steps = chain(**changes)
    steps[0]["recipe"] |= {
        "lot_size": 4,
        "source": {"items": [{"field": field} for field in fields], "carry": ["field"]},
        "generator": {"kind": "tests.gated:Gated", "folder": str(folder)},
        "limits": {},
    }
    return steps


def open_gate(folder: Path) -> None:
    (folder / "open").touch()


def hashes(out: Path) -> dict[str, dict[str, str]]:
    return {name: kept_hashes(str(out / name)) for name in NAMES}


def when(out: Path, step: str, num_lots: int, act: Callable[[], object]) -> threading.Thread:
    """Calls `act` once a step has committed that many lots."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE_S
        while num_committed(str(out / step)) < num_lots and time.monotonic() < end:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def waited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The shards of the chain where each step waits for the end of the one before."""
    folder = tmp_path_factory.mktemp("waited")
    done = gristmill("flow", flow_file(folder, gated(folder, is_open=True)), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return hashes(folder / "out")


def test_the_same_bytes_while_the_step_before_goes_on(waited: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    opener = when(out, "judged", 1, lambda: open_gate(tmp_path))  # the first step cannot end before
    done = gristmill("flow", flow_file(tmp_path, gated(tmp_path, **STREAMED)), "--out", str(out))
    opener.join()
    assert done.returncode == 0, done.stderr
    assert "step 'texts': produce, beside 'topics', 'judged'" in done.stderr
    assert hashes(out) == waited
    parts = sorted((out / "judged" / "events").glob("*.jsonl"))
    events = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert not [e for e in events if e["event"] == "log" and "topics" in e["text"]], "each run keeps its own log"
    audit = gristmill("audit", str(out))
    assert audit.returncode == 0 and "2 links" in audit.stdout, audit.stdout


def test_a_stop_reaches_all_steps_and_the_same_command_goes_on(waited: dict[str, Any], tmp_path: Path) -> None:
    out, path = tmp_path / "out", flow_file(tmp_path, gated(tmp_path, **STREAMED))
    stopper = when(out, "texts", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    done = gristmill("flow", path, "--out", str(out))
    stopper.join()
    assert done.returncode == 130 and "resume with: gristmill flow" in done.stderr, done.stderr
    status = json.loads(gristmill("status", str(out), "--json").stdout)
    assert status["state"] == "stopped" and {step["state"] for step in status["steps"]} == {"stopped"}
    open_gate(tmp_path)
    more = gristmill("flow", path, "--out", str(out))
    assert more.returncode == 0, more.stderr
    assert hashes(out) == waited


def test_a_killed_driver_loses_nothing(tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    topics = {"set": {"lot_size": 4, "generator": {"pooled": True, "seconds_per_ask": 0.1}}}
    path = flow_file(tmp_path, chain(topics=topics, **STREAMED), cluster={"num_cpus": 4})
    at_once = ("--set", "steps.topics.set.generator.seconds_per_ask=0")
    command = [sys.executable, "-m", "gristmill", "flow", path, "--out", str(out)]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_commits(str(out / "texts"), 1, run)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert num_committed(str(out / "topics")) < 24
    status = json.loads(gristmill("status", str(out), "--json").stdout)
    assert (status["state"], status["alive"]) == ("stopped", False)
    for folder, stream in ((out, "true"), (whole, "false")):
        streams = [f"steps.{name}.stream={stream}" for name in NAMES[1:]]
        done = gristmill("flow", path, "--out", str(folder), *at_once, "--set", streams[0], "--set", streams[1])
        assert done.returncode == 0, done.stderr
    assert hashes(out) == hashes(whole)
    assert gristmill("audit", str(out)).returncode == 0


@pytest.mark.nightly
def test_a_step_that_ends_early_ends_the_flow_with_its_code(tmp_path: Path) -> None:
    texts = {"stream": True, "set": {"limits": {"device_s": 0.001}, "generator": {"pooled": True}}}
    steps = gated(tmp_path, texts=texts, judged={"stream": True})
    done = gristmill("flow", flow_file(tmp_path, steps), "--out", str(tmp_path / "out"))
    assert done.returncode == 3 and "step 'texts' ended with exit code 3 (budget)" in done.stderr, done.stderr
    states = [s["state"] for s in json.loads(gristmill("status", str(tmp_path / "out"), "--json").stdout)["steps"]]
    assert states == ["stopped", "budget", "waiting"]


def test_a_step_that_fails_stops_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard = out / "topics" / "kept" / f"part-{OPEN_LOTS:08d}.parquet"
    breaker = when(out, "topics", OPEN_LOTS, lambda: shard.write_bytes(b"no shard"))
    done = gristmill("flow", flow_file(tmp_path, gated(tmp_path, **STREAMED)), "--out", str(out))
    breaker.join()
    assert done.returncode == 2 and f"step 'texts': {shard}" in done.stderr, done.stderr
    status = json.loads(gristmill("status", str(out), "--json").stdout)
    assert status["state"] == "failed" and [s["state"] for s in status["steps"]] == ["stopped", "failed", "stopped"]
    assert str(shard) in status["steps"][1]["error"]


@pytest.mark.nightly
def test_streamed_on_s3(waited: dict[str, Any], s3: str, tmp_path: Path) -> None:
    out = f"{s3}/streamed"
    opener = threading.Thread(target=lambda: (_wait_for(f"{out}/judged"), open_gate(tmp_path)))
    opener.start()
    done = gristmill("flow", flow_file(tmp_path, gated(tmp_path, **STREAMED)), "--out", out)
    opener.join()
    assert done.returncode == 0, done.stderr
    assert {name: kept_hashes(f"{out}/{name}") for name in NAMES} == waited
    assert gristmill("audit", out).returncode == 0


def _wait_for(uri: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while num_committed(uri) < 1 and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"source": {"samples": 2, "together": False}}, "source.samples reads its rows again"),
        ({"source": {"samples": 1, "together": False, "cycle": True}, "limits": {"asks": 400}}, "source.cycle"),
    ],
)
def test_a_step_that_reads_rows_again_waits(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    steps = chain(texts={"stream": True, "set": change})[:2]
    done = gristmill("flow", flow_file(tmp_path, steps), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert f"it waits for the end of step 'topics': {why}" in done.stderr
    record = json.loads((tmp_path / "out" / "flow.json").read_text())["steps"][1]
    assert record["inputs"][0]["by"] == "content" and record["state"] == "complete"
    assert gristmill("audit", str(tmp_path / "out")).returncode == 0
