"""What scheduling a study costs: 1,000 chains of a cheap family through Ray and the store, and the same in a bare loop.

Both sides do the same generations with the same random numbers on all cores, in turns, a few times over; the medians
stand in the table: of the wall clock, and of CPU seconds over all processes (Ray's own included), which others on the
machine disturb less. The bare loop is one process a core that calls the chain loop and keeps the measures in memory: no
Ray, no units, no Parquet, no commits. Ray's start is in neither (a study pays it once, 5 to 10 s) and stands beside.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TURNS = 3
NUM_CHAINS = 1000
# (what, keys of the study): chains of a gate are units and commits of their own, others 256 of them.
CASES = (
    ("a unit and a commit each (gated)", 'gates = [{ kind = "interval", low = -9.0, high = 9.0 }]\ngenerations = 50'),
    ("in blocks of 256", "generations = 200"),
)

STUDY = """
name = "overhead"
n = 100
chains = {chains}
{more}
[family]
kind = "gaussian"
[regimes.replace]
shortfall = "shrink"
"""

BARE = """
import json, sys, time
import psutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from generators.chains.gates import make_gates
from generators.chains.loop import Pool, generations
from jobs.study_spec import load_study

def cpu_s():
    mine = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in [mine, *mine.children(recursive=True)])

_, cells = load_study(sys.argv[1])
CELL = cells[0]

def chain(block):
    family = CELL.family()
    family.block = CELL.width
    family.open()
    gates, span = make_gates(CELL.gates, family), range(1, CELL.generations + 1)
    return [o.measures for o in generations(family, CELL.regime_at, CELL.n, span, CELL.seed, block, Pool(), gates)]

def warm(_):
    time.sleep(0.5)

if __name__ == "__main__":
    cores, blocks = int(sys.argv[2]), -(-CELL.chains // CELL.width)
    with ProcessPoolExecutor(cores, get_context("fork")) as pool:
        list(pool.map(warm, range(cores)))
        started, before = time.perf_counter(), cpu_s()
        found = sum(len(told) for told in pool.map(chain, range(blocks), chunksize=max(1, blocks // (8 * cores))))
        seconds, used = time.perf_counter() - started, cpu_s() - before
    assert found == blocks * CELL.generations
    print(json.dumps({"seconds": seconds, "cpu_s": used}))
"""

SCHEDULED = """
import functools, json, sys, time
import psutil
from cluster.connect import connected
from cluster.spec import ClusterSpec, UnitSpec
from cluster.units import run_units
from evaluation.chains import TableMeter
from generators.chains.work import do_all
from jobs.study_spec import load_study
from records.store import open_store
import ray

def cpu_s():
    mine = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in [mine, *mine.children(recursive=True)])

_, cells = load_study(sys.argv[1])
cores, store = int(sys.argv[2]), open_store(sys.argv[3])
units = [unit for cell in cells for unit in cell.units()]
begun = time.perf_counter()
with connected(ClusterSpec(num_cpus=cores), lambda text: None):
    # Worker processes up, with what they import: Ray's start, told apart.
    slow = ray.remote(lambda: (time.sleep(1), __import__("jobs.study_spec"), __import__("evaluation.chains")))
    ray.get([slow.options(num_cpus=1).remote() for _ in range(cores)])
    do = functools.partial(do_all, store=store, meter=TableMeter)
    started, before = time.perf_counter(), cpu_s()
    done = run_units(units, lambda keys: set(), do, UnitSpec(), lambda progress: None, lambda: False)
    ended, used = time.perf_counter(), cpu_s() - before
assert len(done.done) == len(units) and not done.failed
print(json.dumps({"seconds": ended - started, "cpu_s": used, "start_s": started - begun, "units": len(units)}))
"""


def _script(text: str, *arguments: Any) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", text, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))


def bench() -> list[dict[str, Any]]:
    import os

    cores, rows = os.cpu_count() or 1, []
    for what, more in CASES:
        bare, scheduled = [], []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "study.toml"
            path.write_text(STUDY.format(chains=NUM_CHAINS, more=more))
            for turn in range(TURNS):
                bare.append(_script(BARE, path, cores))
                scheduled.append(_script(SCHEDULED, path, cores, Path(folder) / f"out-{turn}"))
        wall, cpu = ([_median(side, key) for side in (scheduled, bare)] for key in ("seconds", "cpu_s"))
        rows.append(
            {
                "what": f"{NUM_CHAINS:,} chains {what}, {scheduled[0]['units']:,} units, {cores} cores",
                "value": f"{wall[0]:.1f} s, {cpu[0]:.1f} CPU s (Ray up in {_median(scheduled, 'start_s'):.0f} s)",
                "peer": f"bare loop: {wall[1]:.1f} s, {cpu[1]:.1f} CPU s ({cpu[0] / cpu[1]:.3f})",
                "ratio": wall[0] / wall[1],
                "target": "< 1.2",
            }
        )
    return rows


def _median(sides: list[dict[str, Any]], key: str) -> float:
    return statistics.median(side[key] for side in sides)
