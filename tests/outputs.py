"""Looking at outputs: hashes of shards, waiting for commits."""

import hashlib
import subprocess
import time
from pathlib import Path

from gristmill.records.stores.opening import open_store


def kept_hashes(uri: str) -> dict[str, str]:
    """sha256 of every kept and rejected shard, by name."""
    store = open_store(uri)
    names = [e.name for folder in ("kept/", "rejected/") for e in store.list(folder)]
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in names}


def num_committed(uri: str) -> int:
    return sum(1 for _ in open_store(uri).list("kept/"))


def wait_for_commits(uri: str, num_lots: int, process: subprocess.Popen, timeout_s: float = 240) -> None:
    end = time.monotonic() + timeout_s
    while num_committed(uri) < num_lots:
        assert process.poll() is None, f"the run ended early: {process.communicate()}"
        assert time.monotonic() < end, f"no {num_lots} lots in {uri} after {timeout_s} s"
        time.sleep(0.05)


def shard_paths(out: Path) -> list[str]:
    return [str(p) for p in sorted((out / "kept").glob("*.parquet"))]
