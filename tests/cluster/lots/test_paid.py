"""A run whose calls cost money: a budget ends it in time, and after a kill -9 what was kept is not paid again."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT, gristmill
from tests.engines.endpoint.proxy import MODEL, Proxy
from tests.outputs import PATIENCE_S
from tests.recipes import write

NUM_ASKS, LOT_SIZE = 240, 80
NUM_SLOTS, SECONDS, FLUSH_S = 4, 0.1, 0.4
# Calls that a sudden end may lose: those in flight, and those answered since the last flush.
MAX_LOST = NUM_SLOTS + int(NUM_SLOTS / SECONDS * FLUSH_S)
PRICE = 0.25  # of a call: 4 tokens; sums of it are exact
FAULTS = {7: "500", 40: "429", 90: "cut", 130: "json"}  # by the number of the call


def recipe(folder: Path, server: Proxy, **limits: Any) -> str:
    endpoint = {"kind": "endpoint", "base_url": server.url, "model": MODEL, "sampling": {"max_tokens": 8}}
    prices = {"price_in": 0.0, "price_out": 1e6 * PRICE / 4}
    return write(
        folder / "recipe.toml",
        {
            "name": "paid-test",
            "lot_size": LOT_SIZE,
            "source": {"items": ["a river", "a bridge"], "cycle": True},
            "generator": {**endpoint, **prices, "max_in_flight": NUM_SLOTS, "flush_s": FLUSH_S},
            "method": {"kind": "prompt", "template": "Write about {text}."},
            "limits": {"asks": NUM_ASKS, **limits},
            "cluster": {"num_cpus": 2},
        },
    )


def manifest(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "manifest.json").read_text()))


@pytest.mark.timeout(600)
def test_a_budget_a_kill_and_a_new_driver_pay_for_each_answer_once(tmp_path: Path) -> None:
    with Proxy(script=lambda number, body: FAULTS.get(number), latency_s=lambda in_flight: SECONDS) as server:
        _play(tmp_path, server)


def _play(tmp_path: Path, server: Proxy) -> None:
    out, budget = tmp_path / "out", 40 * PRICE
    whole, poor = recipe(tmp_path, server), recipe(tmp_path / "poor", server, cost=budget)
    forecast = gristmill("produce", whole, "--out", str(out), "--dry-run")
    assert f"calls left at most {2 * NUM_ASKS * PRICE:.2f} USD" in " ".join(forecast.stdout.split()), forecast.stdout
    first = gristmill("produce", poor, "--out", str(out))
    assert first.returncode == 3 and "limits.cost is spent" in first.stdout, first.stdout + first.stderr
    state = manifest(out)
    assert state["ended"] == "cost" and budget / 2 < state["cost"]["paid"] == state["cost"]["cost"]
    assert state["cost"]["paid"] <= len(server.bodies) * PRICE < NUM_ASKS * PRICE / 2
    assert state["totals"]["num_lots"] < 2  # the lot in flight was stopped, and its answers are there
    command = [sys.executable, "-m", "gristmill", "produce", whole, "--out", str(out)]
    with open(tmp_path / "log", "wb") as log:
        run = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    until, end = len(server.bodies) + 50, time.monotonic() + PATIENCE_S
    while len(server.bodies) < until:
        assert run.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert list((out / "answers").iterdir())
    done = gristmill("produce", whole, "--out", str(out))
    assert done.returncode == 0, done.stderr
    num_calls, num_faults = len(server.bodies), sum(server.faults.values())
    assert num_faults == len(FAULTS)
    assert NUM_ASKS <= num_calls - num_faults <= NUM_ASKS + 2 * MAX_LOST  # the end by the budget was sudden, too
    state = manifest(out)
    assert state["totals"]["paid"] == NUM_ASKS * PRICE  # each row has one answer
    assert NUM_ASKS * PRICE <= state["cost"]["paid"] <= num_calls * PRICE
    assert state["cost"]["per_kept_row"] == state["cost"]["cost"] / state["totals"]["kept"]
    assert not (out / "answers").exists()
    status = gristmill("status", str(out))
    assert "of it for calls" in status.stdout and gristmill("audit", str(out)).returncode == 0
    open_store(str(out)).put("answers/lot-00000001-0123456789abcdef-000000.jsonl.zst", b"left by another driver")
    audit = gristmill("audit", str(out))
    assert audit.returncode == 0 and "1 kept answers of committed lots" in audit.stdout
    assert gristmill("produce", whole, "--out", str(out)).returncode == 0
    assert not (out / "answers").exists() and len(server.bodies) == num_calls
