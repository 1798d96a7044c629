"""A step that starts on the committed rows of the one before writes what it would write after its end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, gristmill
from tests.jobs.flow.flows import chain, flow_file
from tests.outputs import PATIENCE_S, kept_hashes, num_committed, wait_for_commits

STREAMED = {"texts": {"stream": True}, "judged": {"stream": True}}
NAMES = ("topics", "texts", "judged")


def paced(seconds_per_ask: float, **changes: Any) -> list[dict[str, Any]]:
    """The chain with a first step of 24 small lots that takes its time."""
    topics = {"set": {"lot_size": 4, "generator": {"pooled": True, "seconds_per_ask": seconds_per_ask}}}
    return chain(topics=topics, **changes)


def hashes(out: Path) -> dict[str, dict[str, str]]:
    return {name: kept_hashes(str(out / name)) for name in NAMES}


@pytest.fixture(scope="module")
def waited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The shards of the chain where each step waits for the end of the one before."""
    folder = tmp_path_factory.mktemp("waited")
    done = gristmill("flow", flow_file(folder, paced(0.0)), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return hashes(folder / "out")


def test_the_same_bytes_while_the_step_before_goes_on(waited: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = gristmill("flow", flow_file(tmp_path, paced(0.01, **STREAMED)), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "step 'texts': produce, beside 'topics', 'judged'" in done.stderr
    assert hashes(out) == waited

    def events(name: str) -> list[dict[str, Any]]:
        parts = sorted((out / name / "events").glob("*.jsonl"))
        return [json.loads(line) for part in parts for line in part.read_text().splitlines()]

    first = min(event["t"] for event in events("judged") if event["event"] == "commit")
    assert first < max(event["t"] for event in events("topics") if event["event"] == "commit")
    logged = [event["text"] for event in events("judged") if event["event"] == "log"]
    assert not [text for text in logged if "topics" in text], "each run keeps its own log"
    audit = gristmill("audit", str(out))
    assert audit.returncode == 0 and "2 links" in audit.stdout, audit.stdout


def test_a_stop_reaches_all_steps_and_the_same_command_goes_on(waited: dict[str, Any], tmp_path: Path) -> None:
    out, path = tmp_path / "out", flow_file(tmp_path, paced(0.05, **STREAMED))

    def stop() -> None:
        end = time.monotonic() + PATIENCE_S
        while num_committed(str(out / "texts")) < 1 and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    done = gristmill("flow", path, "--out", str(out))
    stopper.join()
    assert done.returncode == 130 and "resume with: gristmill flow" in done.stderr, done.stderr
    status = json.loads(gristmill("status", str(out), "--json").stdout)
    assert status["state"] == "stopped" and {step["state"] for step in status["steps"]} == {"stopped"}
    assert 0 < num_committed(str(out / "topics")) < 24
    more = gristmill("flow", path, "--out", str(out), "--set", "steps.topics.set.generator.seconds_per_ask=0")
    assert more.returncode == 0, more.stderr
    assert hashes(out) == waited


def test_a_killed_driver_loses_nothing(waited: dict[str, Any], tmp_path: Path) -> None:
    out, path = tmp_path / "out", flow_file(tmp_path, paced(0.1, **STREAMED), cluster={"num_cpus": 4})
    command = [sys.executable, "-m", "gristmill", "flow", path, "--out", str(out)]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_commits(str(out / "texts"), 1, run)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    status = json.loads(gristmill("status", str(out), "--json").stdout)
    assert (status["state"], status["alive"]) == ("stopped", False)
    settings = ("--set", "steps.topics.set.generator.seconds_per_ask=0", "--set", "steps.judged.stream=false")
    more = gristmill("flow", path, "--out", str(out), *settings)
    assert more.returncode == 0, more.stderr
    assert hashes(out) == waited
    assert gristmill("audit", str(out)).returncode == 0


def test_a_step_that_ends_early_ends_the_flow_with_its_code(tmp_path: Path) -> None:
    texts = {"stream": True, "set": {"limits": {"device_s": 0.001}, "generator": {"pooled": True}}}
    steps = paced(0.05, texts=texts, judged={"stream": True})
    done = gristmill("flow", flow_file(tmp_path, steps), "--out", str(tmp_path / "out"))
    assert done.returncode == 3 and "step 'texts' ended with exit code 3 (budget)" in done.stderr, done.stderr
    states = [s["state"] for s in json.loads(gristmill("status", str(tmp_path / "out"), "--json").stdout)["steps"]]
    assert states == ["stopped", "budget", "waiting"]


def test_a_step_that_fails_stops_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def break_a_shard() -> None:
        end = time.monotonic() + PATIENCE_S
        while num_committed(str(out / "topics")) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        (out / "topics" / "kept" / "part-00000005.parquet").write_bytes(b"no shard")

    breaker = threading.Thread(target=break_a_shard)
    breaker.start()
    done = gristmill("flow", flow_file(tmp_path, paced(0.1, **STREAMED)), "--out", str(out))
    breaker.join()
    assert done.returncode == 2 and "step 't" in done.stderr, done.stderr
    status = json.loads(gristmill("status", str(out), "--json").stdout)
    assert status["state"] == "failed"
    assert "failed" in {step["state"] for step in status["steps"]} and "running" not in str(status["steps"])


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
