"""Resume of a run with 100,000 committed lots: listing, footers that the manifest has not counted, totals.

The shards here hold no rows: what a resume reads does not depend on rows, and that is the point. The peer is the
bare listing of the folder.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_LOTS = 100_000
NUM_UNCOUNTED = 200  # lots committed after the manifest was last saved

CHILD = """
import resource, sys, time
from gristmill.jobs.produce.command import _resume
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.stores.opening import open_store
mill, store = compile_recipe(load(sys.argv[1])), open_store(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
manifest, totals, leftovers = _resume(mill, store)
seconds = time.perf_counter() - started
assert totals.num_lots == int(sys.argv[3]), totals
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def bench() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        recipe, out = _output(Path(folder))
        started = time.perf_counter()
        assert sum(1 for e in os.scandir(f"{out}/kept") if e.stat().st_size) == NUM_LOTS
        listing_s = time.perf_counter() - started
        done = subprocess.run(
            [sys.executable, "-c", CHILD, recipe, out, str(NUM_LOTS)], capture_output=True, text=True, check=True
        )
        seconds, memory_mb = map(float, done.stdout.split())
    return [
        {
            "what": f"resume of {NUM_LOTS:,} committed lots, local disk",
            "value": f"{seconds:.2f} s, {memory_mb:.0f} MB more memory",
            "peer": f"bare listing of the folder: {listing_s:.2f} s",
            "ratio": seconds / listing_s,
            "target": "< 10 s, memory independent of rows",
        }
    ]


def _output(folder: Path) -> tuple[str, str]:
    """An output of NUM_LOTS lots made by hand from one real, empty shard."""
    import pyarrow as pa

    from gristmill.jobs.recipes.compile import compile_recipe
    from gristmill.jobs.recipes.recipe import load
    from gristmill.records.lots import asks
    from gristmill.records.output.manifest import Manifest
    from gristmill.records.output.shards import Summary, encode
    from gristmill.records.schema import ASK, set_column
    from gristmill.records.stores.opening import open_store
    from tests.recipes import canned

    recipe = canned(folder, num_asks=NUM_LOTS * 32 + 32, lot_size=32)
    out = folder / "out"
    mill = compile_recipe(load(recipe))
    batch = asks(mill.plan, mill.source, 0).drop_columns([ASK.name])
    for field in mill.schema:
        if field.name not in batch.schema.names:
            batch = set_column(batch, field, pa.nulls(batch.num_rows, field.type))
    encoded = encode(batch.slice(0, 0), mill.schema, 0, mill.recipe.output)
    (out / "kept").mkdir(parents=True)
    for lot in range(NUM_LOTS):
        (out / "kept" / f"part-{lot:08d}.parquet").write_bytes(encoded.kept)
    book = Manifest(mill.fingerprint, mill.resolved(), mill.identity)
    counted = NUM_LOTS - NUM_UNCOUNTED
    book.totals = Summary(num_lots=counted, asks=NUM_LOTS * 32, kept=NUM_LOTS * 32)
    book.save(open_store(str(out)))
    return recipe, str(out)
