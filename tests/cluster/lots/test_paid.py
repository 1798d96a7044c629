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
from tests.outputs import PATIENCE_S
from tests.paid import ANSWERED, BEGUN, PRICE, calls
from tests.recipes import write

NUM_ASKS, LOT_SIZE = 160, 16
NUM_SLOTS, SECONDS, FLUSH_S = 4, 0.05, 0.4
# Calls that a sudden end may lose: those in flight (and one ahead), and those answered since the last flush.
MAX_LOST = NUM_SLOTS + 1 + int(NUM_SLOTS / SECONDS * FLUSH_S)


def recipe(folder: Path, **limits: Any) -> str:
    spec = {"folder": str(folder), "num_slots": NUM_SLOTS, "seconds": SECONDS, "flush_s": FLUSH_S}
    return write(
        folder / "recipe.toml",
        {
            "name": "paid-test",
            "lot_size": LOT_SIZE,
            "source": {"items": ["a river", "a bridge"], "cycle": True},
            "generator": {"kind": "tests.paid:Paid", **spec},
            "method": {"kind": "prompt", "template": "Write about {text}."},
            "limits": {"asks": NUM_ASKS, **limits},
            "cluster": {"num_cpus": 2},
        },
    )


def manifest(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "manifest.json").read_text()))


@pytest.mark.timeout(600)
def test_a_budget_a_kill_and_a_new_driver_pay_for_each_answer_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    budget = 40 * PRICE
    first = gristmill("produce", recipe(tmp_path, cost=budget), "--out", str(out))
    assert first.returncode == 3 and "limits.cost is spent" in first.stdout, first.stdout + first.stderr
    found = manifest(out)
    assert found["ended"] == "cost" and budget / 2 < found["cost"]["paid"] == found["cost"]["cost"]
    assert found["cost"]["paid"] <= calls(tmp_path)[BEGUN] * PRICE < budget + 2 * MAX_LOST * PRICE
    whole = recipe(tmp_path)
    command = [sys.executable, "-m", "gristmill", "produce", whole, "--out", str(out)]
    with open(tmp_path / "log", "wb") as log:
        run = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    until, end = calls(tmp_path)[ANSWERED] + 50, time.monotonic() + PATIENCE_S
    while calls(tmp_path)[ANSWERED] < until:
        assert run.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert list((out / "answers").iterdir())
    done = gristmill("produce", whole, "--out", str(out))
    assert done.returncode == 0, done.stderr
    num_calls = calls(tmp_path)[BEGUN]
    assert NUM_ASKS <= num_calls <= NUM_ASKS + 2 * MAX_LOST  # the end by the budget was sudden, too
    found = manifest(out)
    assert found["totals"]["paid"] == NUM_ASKS * PRICE  # each row has one answer
    assert NUM_ASKS * PRICE <= found["cost"]["paid"] <= num_calls * PRICE
    assert found["cost"]["per_kept_row"] == found["cost"]["cost"] / NUM_ASKS
    assert not (out / "answers").exists()
    status = gristmill("status", str(out))
    assert "of it for calls" in status.stdout and gristmill("audit", str(out)).returncode == 0
    open_store(str(out)).put("answers/lot-00000003-0123456789abcdef-000000.jsonl.zst", b"left by another driver")
    audit = gristmill("audit", str(out))
    assert audit.returncode == 0 and "1 kept answers of committed lots" in audit.stdout
    assert gristmill("produce", whole, "--out", str(out)).returncode == 0
    assert not (out / "answers").exists() and calls(tmp_path)[BEGUN] == num_calls
