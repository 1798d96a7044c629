"""Compiled kernels are found again from any folder that holds the same sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.session import ROOT

PROGRAM = """
import numpy as np
from gristmill.stages.kernels.mixing import mix
from gristmill.stages.kernels import cache
mix(np.uint64(1))
print(cache.FOLDER, sum(mix.stats.cache_hits.values()), sum(mix.stats.cache_misses.values()))
"""


def compile_in(folder: Path, cache: Path) -> list[str]:
    """Where the kernels lie, cache hits and misses of a process that takes the package from `folder`."""
    env = {**os.environ, "PYTHONPATH": str(folder), "GRISTMILL_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_another_folder_compiles_nothing_and_another_source_does(tmp_path: Path) -> None:
    """As on two nodes of a cluster: each unpacks the package into a folder of its own."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        shutil.copytree(ROOT / "gristmill", folder / "gristmill", ignore=shutil.ignore_patterns("__pycache__"))
        for floor in ("records", "engines", "stages"):
            shutil.copytree(ROOT / floor, folder / "gristmill" / floor, ignore=shutil.ignore_patterns("__pycache__"))
    with (folders[2] / "gristmill" / "stages" / "kernels" / "rules.py").open("a") as other:
        other.write("# another source\n")
    cache = tmp_path / "cache"
    outcomes = [compile_in(folder, cache) for folder in folders]
    assert all(str(folder) in outcome[0] for folder, outcome in zip(folders, outcomes))
    assert [outcome[1:] for outcome in outcomes] == [["0", "1"], ["1", "0"], ["0", "1"]]
    assert len(list(cache.glob("kernels-*"))) == 2
