"""A study on one node and on three, one of which is lost on the way: the same bytes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import session
from tests.conftest import ROOT, gristmill
from tests.outputs import PATIENCE_S

STUDY = """
name = "nodes"
n = 100
generations = 3
chains = 2
gates = [{ kind = "dedup" }, { kind = "stage", stage = { kind = "constraints", rules = ["mean_radius <= 20"] } }]
[family]
kind = "model"
model = { kind = "independent" }
data = { path = "package:breast-cancer", part = "train" }
holdout = { path = "package:breast-cancer", part = "holdout" }
schema = { file = "package:schemas/breast-cancer" }
[regimes.replace]
shortfall = "resample"
[regimes.accumulate]
shortfall = "shrink"
"""
NUM_UNITS = 2 * 2 * 3
NAMES = ("results.parquet", "summary.parquet")


@pytest.mark.nightly
def test_one_node_and_three_of_which_one_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    with session.ray_cluster(num_cpus=1) as cluster:
        reach = {"RAY_ADDRESS": cluster.address}
        alone = gristmill("study", str(path), "--out", str(tmp_path / "alone"), env=reach)
        assert alone.returncode == 0, alone.stderr
        others = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        command = [sys.executable, "-m", "gristmill", "study", str(path), "--out", str(tmp_path / "three")]
        run = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **reach}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while run.poll() is None and _num_done(tmp_path / "three") < 3:
            time.sleep(0.02)
        num_done = _num_done(tmp_path / "three")
        cluster.remove_node(others[0], allow_graceful=False)
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert 3 <= num_done < NUM_UNITS and _num_done(tmp_path / "three") == NUM_UNITS
    for name in NAMES:
        assert (tmp_path / "three" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    told = pq.read_table(tmp_path / "alone" / NAMES[0])
    assert {"kept_share_dedup", "kept_share_constraints", "drift"} <= set(told.column_names)


def _num_done(out: Path) -> int:
    return len(list((out / "units").glob("*.parquet")))
