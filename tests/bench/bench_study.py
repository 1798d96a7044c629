"""What scheduling a study costs: 1,000 chains of a cheap family through Ray and the store, and the same in a bare loop.

Both sides do the same generations with the same random numbers on all cores, in turns, a few times over; the medians
stand in the table: of the wall clock, and of CPU seconds over all processes (Ray's own included), which others on the
machine disturb less. The bare loop is one process a core that calls the chain loop and keeps the measures in memory: no
Ray, no units, no Parquet, no commits. Ray's start is in neither (a study pays it once) and stands beside.
"""

import json
import os
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
    ("in blocks of 256", "generations = 300"),
    ("a unit and a commit each (gated)", 'gates = [{ kind = "interval", low = -9.0, high = 9.0 }]\ngenerations = 50'),
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

SCRIPT = """
import functools, json, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import psutil
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.loop import Pool, generations
from gristmill.jobs.study.spec import load_study

_, (CELL,) = load_study(sys.argv[1])
CORES, OUT, TURNS = int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def chain(block):
    family = CELL.family()
    family.open()
    gates, span = make_gates(CELL.gates, family), range(1, CELL.generations + 1)
    return [o.measures for o in generations(family, CELL.regime_at, CELL.n, span, CELL.seed, block, Pool(), gates)]

def cpu_s():
    mine = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in [mine, *mine.children(recursive=True)])

def timed(do):
    started, before = time.perf_counter(), cpu_s()
    do()
    return time.perf_counter() - started, cpu_s() - before

def bare(pool):
    blocks = -(-CELL.chains // CELL.width)
    told = pool.map(chain, range(blocks), chunksize=max(1, blocks // (8 * CORES)))
    assert sum(len(t) for t in told) == blocks * CELL.generations

def scheduled(store, most=None):
    units = list(CELL.units())[:most]
    do = functools.partial(do_all, store=store, metrics=ChainMetrics())
    done = run_units(units, lambda keys: set(), do, UnitSpec(), lambda progress: None, lambda: False)
    assert len(done.done) == len(units) and not done.failed

if __name__ == "__main__":
    with ProcessPoolExecutor(CORES, get_context("fork")) as pool:  # before Ray, whose threads a fork would not bear
        list(pool.map(chain, [0] * 2 * CORES))
        import ray
        from gristmill.cluster.connect import connected
        from gristmill.cluster.spec import ClusterSpec, UnitSpec
        from gristmill.cluster.fits.units import run_units
        from gristmill.evaluation.collapse.chains import ChainMetrics
        from gristmill.generators.chains.work import do_all
        from gristmill.records.stores.opening import open_store
        begun = time.perf_counter()
        with connected(ClusterSpec(num_cpus=CORES)):
            start_s = time.perf_counter() - begun
            scheduled(open_store(OUT + "/warm"), 8 * CORES)
            for turn in range(TURNS):
                sides = {"bare": timed(lambda: bare(pool))}
                sides["scheduled"] = timed(lambda: scheduled(open_store(f"{OUT}/{turn}")))
                print(json.dumps({**sides, "start_s": start_s, "units": len(list(CELL.units()))}), flush=True)
"""


def turns(study: Path, cores: int, out: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", SCRIPT, *map(str, (study, cores, out, TURNS))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def bench() -> list[dict[str, Any]]:
    cores, rows = os.cpu_count() or 1, []
    for what, more in CASES:
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder) / "study.toml"
            study.write_text(STUDY.format(chains=NUM_CHAINS, more=more))
            found = turns(study, cores, Path(folder) / "out")
        wall, cpu = ([statistics.median(t[s][i] for t in found) for s in ("scheduled", "bare")] for i in (0, 1))
        rows.append(
            {
                "what": f"{NUM_CHAINS:,} chains {what}, {found[0]['units']:,} units, {cores} cores",
                "value": f"{wall[0]:.1f} s, {cpu[0]:.1f} CPU s (Ray up in {found[0]['start_s']:.0f} s)",
                "peer": f"bare loop: {wall[1]:.1f} s, {cpu[1]:.1f} CPU s ({cpu[0] / cpu[1]:.2f})",
                "ratio": wall[0] / wall[1],
                "target": "< 1.2",
            }
        )
    return rows
