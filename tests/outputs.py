"""Looking at outputs: hashes of shards, waiting for commits."""

import asyncio
import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from gristmill.cluster.lots.sequencer import CommitSequencer
from gristmill.cluster.lots.work import LotPipeline, finish, process
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import ask_batch, source_lot
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import put_kept, put_rejected
from gristmill.records.output.summary import Summary
from gristmill.records.stores.local import LocalStore
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


def commit_lots(recipe: str, uri: str, num_lots: int, num_in_flight: int = 0) -> None:
    """What a driver leaves that is killed after so many commits of a recipe without dedup: it has begun one start, and
    has noted nothing since. The answers of `num_in_flight` further lots are kept, if they cost money.
    """
    compiled, store = compile_recipe(load(recipe)), open_store(uri)
    manifest = Manifest(compiled.fingerprint, compiled.resolved(), compiled.identity)
    manifest.begin()
    manifest.save(store)
    generator, plan = compiled.generator, compiled.plan
    generator.answers = AnswerFolder(LocalStore(uri), compiled.fingerprint) if compiled.paid_parts else None
    generator.open()
    pipeline = LotPipeline(plan, compiled.stages, compiled.schema, compiled.recipe.output).open()
    sequencer = CommitSequencer(pipeline, store, compiled.recipe.cluster)
    sequencer.start(Summary(), lambda: False, compiled.recipe.limits.exact_rows)
    for lot in range(num_lots + num_in_flight):
        batch = asyncio.run(generator.make(ask_batch(source_lot(plan, compiled.source, lot))))
        if lot < num_lots:
            batch, result = process(pipeline, batch)
            encoded = finish(pipeline, batch, lot, sequencer.claim([(lot, result)])[0])
            put_rejected(store, encoded)
            put_kept(store, encoded)
            sequencer.committed(lot)
    generator.close()
