"""Slots kept busy: engines paced like GPUs, whose answers have very different lengths, under a run with all defaults.

Everything is real but the engines, which wait instead of computing (paced.py) and note when each ask begins and ends.
The share of busy slots counts from the first ask to the begin of the last one. The whole run is measured against
the time in which the same slots would do the same work without ever being idle.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import ROOT
from tests.recipes import write

LOT_SIZE = NUM_SLOTS = 256
TARGETS = {0.5: (0.98, 0.95), 0.8: (0.98, 0.94), 1.0: (0.98, 0.92), 1.2: (0.98, 0.88)}
BEFORE = {0.5: 0.66, 0.8: 0.48, 1.0: 0.32, 1.2: 0.20}  # of the rule of version 0.1, simulated
NUM_REPLICAS = 8
KEPT_ROWS = 6_000


def _recipe(folder: Path, num_lots: int, pace: dict[str, Any], judge: dict[str, Any] | None, **changes: Any) -> str:
    stages = [{"kind": "tests.bench.paced:PacedJudge", **judge}] if judge else []
    return write(
        folder / "paced.toml",
        {
            "name": "paced",
            "lot_size": LOT_SIZE,
            "source": {"items": ["a river"], "cycle": True},
            "generator": {"kind": "tests.bench.paced:Paced", "num_slots": NUM_SLOTS, **pace},
            "method": {"kind": "prompt", "template": "Write about {text}."},
            "stages": [{"kind": "finish"}, *stages],
            "limits": {"asks": num_lots * LOT_SIZE},
            **changes,
        },
    )


def _times(folder: Path) -> list[np.ndarray]:
    """(n, 2) for each engine, in the order in which they begin: begin and end of every ask that ended."""
    engines = [np.fromfile(path).reshape(-1, 2) for path in folder.glob("*.times")]
    return sorted((times for times in engines if len(times)), key=lambda times: times[:, 0].min())


def busy(engines: list[np.ndarray], num_slots: int) -> tuple[float, float]:
    """(share of slots busy until the last ask begins, work over slots and the time of the whole run).

    The slots of each of the first engines count from its own first ask: on two cores eight of them start one after
    another. Those of an engine that is lost go on to count while another replaces it.
    """
    times = np.concatenate(engines)
    last, end = times[:, 0].max(), times[:, 1].max()
    starts = np.array([engine[:, 0].min() for engine in engines[: max(1, num_slots // NUM_SLOTS)]])
    until = np.minimum(times[:, 1], last) - times[:, 0]
    slots = num_slots / len(starts)
    return float(until.sum() / (slots * (last - starts).sum())), float(
        (times[:, 1] - times[:, 0]).sum() / (slots * (end - starts).sum())
    )


def measure(
    num_lots: int, num_slots: int, judge: dict[str, Any] | None = None, lose_after_s: float = 0.0, **pace: Any
) -> tuple[float, float]:
    """`busy` of a run, with a judge of the judge. `lose_after_s`: an engine is killed then."""
    changes = pace.pop("changes", {})
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        log.mkdir()
        judge_log = Path(folder, "judge")
        judge_log.mkdir()
        judged = {**judge, "log": str(judge_log)} if judge else None
        recipe = _recipe(Path(folder), num_lots, {**pace, "log": str(log)}, judged, **changes)
        command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", f"{folder}/out"]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if lose_after_s:
            while not list(log.glob("*.times")):
                time.sleep(0.1)
            time.sleep(lose_after_s)
            os.kill(int(sorted(log.glob("*.times"))[-1].stem), signal.SIGKILL)
        _, told = run.communicate()
        assert run.returncode == 0, told[-3000:]
        return busy(_times(judge_log if judge else log), num_slots)


def measure_two(num_lots: int, slow: dict[str, Any], fast: dict[str, Any], shares: tuple[float, float]) -> list[float]:
    """Of a run of two generators, for the slower: share of its slots busy, and its work over its slots and the time.

    The time is that of the whole run, from the first ask of either to the end of the last.
    """
    with tempfile.TemporaryDirectory() as folder:
        generators = []
        for name, pace, share in (("slow", slow, shares[0]), ("fast", fast, shares[1])):
            log = Path(folder, name)
            log.mkdir()
            generators.append({"kind": "tests.bench.paced:Paced", "num_slots": NUM_SLOTS, "name": name, "share": share,
                               "log": str(log), **pace})  # fmt: skip
        recipe = _recipe(Path(folder), num_lots, {}, None, generator=None, generators=generators)
        command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", f"{folder}/out"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        both = [np.concatenate(_times(Path(folder, name))) for name in ("slow", "fast")]
        whole_s = max(times[:, 1].max() for times in both) - min(times[:, 0].min() for times in both)
        work_s = float((both[0][:, 1] - both[0][:, 0]).sum())
        return [busy([both[0]], NUM_SLOTS)[0], work_s / (NUM_SLOTS * whole_s)]


def num_begun(kept_rows: int, **cluster: Any) -> int:
    """Asks that an engine begins in a run that ends at `kept_rows`, of which 70 % of the rows are kept."""
    with tempfile.TemporaryDirectory() as folder:
        limits = {"limits": {"kept_rows": kept_rows}, "cluster": cluster}
        recipe = _recipe(Path(folder), 0, {"log": folder, "cut_off": 0.3}, None, **limits)
        done = subprocess.run(
            [sys.executable, "-m", "gristmill", "produce", recipe, "--out", f"{folder}/out"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return sum(path.stat().st_size for path in Path(folder).glob("*.begun"))


def bench() -> list[dict[str, Any]]:
    rows = []

    def row(what: str, shares: tuple[float, float], targets: tuple[float, float | None], before: str = "") -> None:
        peer = f"the whole run: {shares[1]:.3f}" + (f" (target {targets[1]})" if targets[1] else "")
        rows.append({"what": what, "value": f"{shares[0]:.3f}", "peer": peer + before, "target": f">= {targets[0]}"})

    for sigma, targets in TARGETS.items():
        shares = measure(80, NUM_SLOTS, sigma=sigma)
        row(f"slots busy, one engine, sigma {sigma}", shares, targets, f"; before: {BEFORE[sigma]}")
    wide = {"cluster": {"replicas": NUM_REPLICAS}}
    pace = {"mean_s": 4.0, "slow": 3.0, "changes": wide}
    shares = measure(160, NUM_REPLICAS * NUM_SLOTS, lose_after_s=20.0, **pace)
    row(f"slots busy, {NUM_REPLICAS} engines, one three times slower, one lost", shares, (0.95, None))
    row("slots busy, asks of 4 dependent calls", measure(40, NUM_SLOTS, num_calls=4, mean_s=0.5), (0.98, None))
    shares = measure(40, NUM_SLOTS, judge={"mean_s": 1.0, "num_slots": NUM_SLOTS}, mean_s=0.8)
    row("slots busy, a pool of judges behind a faster engine", shares, (0.95, None))
    for what, pace, weights in (
        ("twice as slow", {"mean_s": 0.5}, (1.0, 1.0)),
        ("as slow and with three times the share", {"mean_s": 1.0}, (3.0, 1.0)),
    ):
        slots, whole = measure_two(60, {"mean_s": 1.0}, pace, weights)
        row(f"slots busy of the slower of two generators, {what}", (slots, whole), (0.95, None))
    one, free = num_begun(KEPT_ROWS, lots_per_replica=1), num_begun(KEPT_ROWS)
    rows.append(
        {
            "what": f"asks begun in a run that ends at {KEPT_ROWS:,} kept rows",
            "value": f"{free:,}",
            "peer": f"one lot per engine: {one:,}",
            "ratio": free / one,
            "target": "<= 1.02",
        }
    )
    return rows
