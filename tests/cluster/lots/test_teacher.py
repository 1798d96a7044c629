"""The real engine through the whole run: killed and resumed, it writes the same rows."""

import signal
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.generators.teacher import Teacher
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
from tests.cluster.lots.test_crashes import start
from tests.conftest import gristmill
from tests.engine import SharedEngine
from tests.outputs import num_committed, wait_for_commits
from tests.recipes import teacher

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400)]
NUM_LOTS = 8
COLUMNS = ["id", "seed", "text", "finish", "tokens_in", "tokens_out"]


def is_engine(process: psutil.Process) -> bool:
    return any(title in " ".join(process.cmdline()) for title in ("VLLM", "ray::Replica"))


def children_are_gone(processes: list[psutil.Process], timeout_s: float = 60) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            return True
        time.sleep(0.5)
    return False


def test_killed_and_resumed_the_teacher_writes_the_rows_of_one_batch(
    tmp_path: Path, shared_engine: SharedEngine
) -> None:
    recipe = teacher(tmp_path, num_asks=8 * NUM_LOTS, lot_size=8, cluster={"num_cpus": 2, "lots_per_replica": 2})
    out = str(tmp_path / "out")
    run = start(recipe, out)
    wait_for_commits(out, 1, run, timeout_s=900)
    children = [p for p in psutil.Process(run.pid).children(recursive=True) if is_engine(p)]
    assert children
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert num_committed(out) < NUM_LOTS
    assert children_are_gone(children), "engines outlive their driver and keep the device"
    resumed = gristmill("produce", recipe, "--out", out, timeout=900)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after" in resumed.stderr
    assert gristmill("audit", out).returncode == 0
    # Another engine, all asks in one batch: neither the lots in flight nor the kill have changed a row.
    paths = [*Path(out, "kept").iterdir(), *Path(out, "rejected").iterdir()]
    rows = pa.concat_tables([pq.read_table(path, columns=COLUMNS) for path in paths], promote_options="permissive")
    assert rows.sort_by("id").to_pylist() == rows_of_one_batch(recipe, shared_engine).sort_by("id").to_pylist()


def rows_of_one_batch(recipe: str, shared_engine: SharedEngine) -> pa.Table:
    """What the engine of the session makes of all asks of a recipe at once."""
    compiled = compile_recipe(load(recipe, ()))
    assert isinstance(compiled.generator, Teacher)
    compiled.generator._engine = shared_engine.engine
    lots = [asks(compiled.plan, compiled.source, lot) for lot in range(NUM_LOTS)]
    batch = pa.Table.from_batches(lots).combine_chunks().to_batches()[0]
    return pa.Table.from_batches([shared_engine.loop.run(compiled.generator.make(batch))]).select(COLUMNS)
