"""The whole CPU side: canned rows of 500 tokens through every stage into Parquet with zstd, on all cores.

The limit beside it is the same work without Ray, index actors and commits: one process, one core, the same pipeline
(generator, stages, claim, encode) in a plain loop, times the number of cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.recipes import whole_cpu_side

LOT_SIZE = 2048
NUM_LOTS = 100
NUM_PLAIN_LOTS = 8
WARM_LOTS = 20

PLAIN = """
import sys, time
import numpy as np, pyarrow as pa
from gristmill.cluster.lots.work import LotPipeline, finish, process
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
from gristmill.stages.admission.contract import LotVerdicts
from gristmill.stages.dedup.bandindex import BandIndex, resolve
pa.set_cpu_count(1)
mill = compile_recipe(load(sys.argv[1]))
pipeline = LotPipeline(mill.plan, mill.stages, mill.schema, mill.recipe.output, mill.generator).open()
index = BandIndex(pipeline.dedup.bands)
seconds, busy = [], {}
for lot in range(int(sys.argv[2])):
    started = time.perf_counter()
    batch, result = process(pipeline, asks(pipeline.plan, mill.source, lot))
    first = lot * pipeline.plan.lot_size
    owners = resolve(result.keys, np.where(result.alive, index.query(result.keys), -1), result.alive, first)
    kept = np.flatnonzero(result.alive & (owners < 0))
    index.insert(result.keys[kept], first + kept)
    finish(pipeline, batch, lot, LotVerdicts(owners, []))
    seconds.append(time.perf_counter() - started)
    busy = result.busy_s
print(pipeline.plan.lot_size / sorted(seconds[1:])[len(seconds[1:]) // 2])
print({k: round(v / pipeline.plan.lot_size * 1e6, 1) for k, v in busy.items()}, file=sys.stderr)
"""


def bench() -> list[dict[str, Any]]:
    num_cores = os.cpu_count() or 1
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        recipe = whole_cpu_side(Path(folder), LOT_SIZE * NUM_LOTS, LOT_SIZE)
        plain = subprocess.run(
            [sys.executable, "-c", PLAIN, recipe, str(NUM_PLAIN_LOTS)],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        plain_rows_s = float(plain.stdout)
        rows_s = _produce(recipe, Path(folder) / "out", env)
    return [
        {
            "what": f"whole CPU side, 500-token rows, {num_cores} cores",
            "value": f"{rows_s:,.0f} rows/s",
            "peer": f"the same pipeline in a plain loop: {plain_rows_s:,.0f} rows/s a core",
            "ratio": rows_s / (plain_rows_s * num_cores),
            "target": ">= 10,000 rows/s",
        }
    ]


def _produce(recipe: str, out: Path, env: dict[str, str]) -> float:
    """Rows per second between the commit of lot WARM_LOTS and the last one: start-up of Ray is not in it."""
    command = [sys.executable, "-m", "gristmill", "produce", recipe, "--out", str(out)]
    with open(out.parent / "log", "w") as log:
        run = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        warm = None
        while run.poll() is None:
            if warm is None and (out / "kept" / f"part-{WARM_LOTS:08d}.parquet").exists():
                warm = time.time()
            time.sleep(0.02)
    assert run.returncode == 0, (out.parent / "log").read_text()
    last = max(p.stat().st_mtime for p in (out / "kept").iterdir())
    assert warm is not None
    return (NUM_LOTS - WARM_LOTS - 1) * LOT_SIZE / (last - warm)
