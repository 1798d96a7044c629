"""Looking at outputs: hashes of shards, waiting for commits."""

import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from gristmill.records.stores.opening import open_store
from tests.recipes import AT_ONCE, canned
from tests.session import PATIENCE_S, gristmill, new_folder

_undisturbed: dict[str, str] = {}


def kept_hashes(uri: str) -> dict[str, str]:
    """sha256 of every kept and rejected shard, by name."""
    store = open_store(uri)
    names = [e.name for folder in ("kept/", "rejected/") for e in store.list(folder)]
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in names}


def undisturbed(**changes: Any) -> str:
    """The output of `canned(**changes)`, run where nothing happens to it: once for all tests of this process."""
    key = json.dumps(changes, sort_keys=True)
    if key not in _undisturbed:
        folder = new_folder("undisturbed")
        done = gristmill("produce", canned(folder, **changes), "--out", str(folder / "out"), *AT_ONCE)
        assert done.returncode == 0, done.stderr
        assert gristmill("audit", str(folder / "out")).returncode == 0
        _undisturbed[key] = str(folder / "out")
    return _undisturbed[key]


def num_committed(uri: str) -> int:
    return sum(1 for _ in open_store(uri).list("kept/"))


def wait_for_commits(uri: str, num_lots: int, process: subprocess.Popen, timeout_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout_s
    while num_committed(uri) < num_lots:
        assert process.poll() is None, f"the run ended early: {process.communicate()}"
        assert time.monotonic() < end, f"no {num_lots} lots in {uri} after {timeout_s} s"
        time.sleep(0.05)


def shard_paths(out: Path) -> list[str]:
    return [str(p) for p in sorted((out / "kept").glob("*.parquet"))]
