"""Many lots on a store that answers after 40 ms: status and resume of a million, audit, and a pack of small lots.

The store is tests/bench/paged_store.py, a small server in a process of its own. The million lots exist as names only:
it computes pages of 1,000 names, and serves the footers of the lots that the manifest has not counted. The shards of
the audit are real. The peer of the listing is the same listing page after page, as botocore parses it, measured on
100 pages; the peer of the audit is a reading of the same shards one after another, measured on 100 lots.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from tests.bench.paged_store import PAGE_NAMES, PagedStore, VirtualFolder, served

NUM_LOTS, NUM_UNCOUNTED = 1_000_000, 200
NUM_AUDITED, LOT_ROWS = 8_000, 32
NUM_PACKED = 20_000
DELAY_S = 0.04

CHILD = """
import resource, sys, time
from gristmill.jobs.produce.command import _resume
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.status.command import describe
from gristmill.records.stores.opening import open_store
compiled, store = compile_recipe(load(sys.argv[1])), open_store("s3://mill")
store.check(write=False)
started = time.perf_counter()
assert describe("s3://mill")["totals"]["num_lots"] == int(sys.argv[2])
status_s = time.perf_counter() - started
started = time.perf_counter()
_, totals, _ = _resume(compiled, store)
resume_s = time.perf_counter() - started
assert totals.num_lots == int(sys.argv[2]), totals
print(status_s, resume_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
VERB = "import sys, time; from gristmill.jobs.cli import main; sys.exit(main(sys.argv[1:]))"


def bench() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return [*_million(Path(folder)), _audit(Path(folder)), _pack(Path(folder))]


def _million(folder: Path) -> list[dict[str, Any]]:
    recipe, objects = _objects(folder)
    counted = NUM_LOTS - NUM_UNCOUNTED
    folders = (
        VirtualFolder("kept/part-%08d.parquet", counted),
        VirtualFolder("rejected/part-%08d-0123456789abcdef.parquet", counted),
    )
    with served(PagedStore(folders, objects, delay_s=DELAY_S)) as env:
        time.sleep(1)
        pages_s = _page_after_page(env)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, recipe, str(NUM_LOTS)],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
    status_s, resume_s, memory_mb = map(float, done.stdout.split())
    status_pages, resume_pages = NUM_LOTS / PAGE_NAMES, 2 * NUM_LOTS / PAGE_NAMES
    return [
        {
            "what": f"status of {NUM_LOTS:,} committed lots, a store that pages, 40 ms a request",
            "value": f"{status_s:.1f} s",
            "peer": f"page after page by boto3: {status_pages * pages_s:.0f} s",
            "ratio": status_pages * pages_s / status_s,
            "target": "< 10 s",
        },
        {
            "what": "resume of the same, each lot with rejected rows",
            "value": f"{resume_s:.1f} s, {memory_mb:.0f} MB in all",
            "peer": f"page after page by boto3: {resume_pages * pages_s:.0f} s",
            "ratio": resume_pages * pages_s / resume_s,
            "target": "< 10 s",
        },
    ]


def _page_after_page(env: dict[str, str]) -> float:
    """Seconds a page."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="mill", Prefix="kept/")
    started = time.perf_counter()
    num = 0
    for _ in pages:
        num += 1
        if num == 100:
            break
    return (time.perf_counter() - started) / num


def _objects(folder: Path) -> tuple[str, dict[str, bytes]]:
    """A recipe, and what a run of it has left: the manifest, and the shards that it has not counted."""
    import pyarrow as pa

    from gristmill.jobs.recipes.compile import compile_recipe
    from gristmill.jobs.recipes.recipe import load
    from gristmill.records.lots import asks
    from gristmill.records.output.manifest import Manifest
    from gristmill.records.output.shards import Summary, encode
    from gristmill.records.schema import ASK, REJECT, set_column
    from gristmill.records.stores.opening import open_store
    from tests.recipes import canned

    recipe = canned(folder, num_asks=NUM_LOTS * LOT_ROWS + LOT_ROWS, lot_size=LOT_ROWS)
    compiled = compile_recipe(load(recipe))
    objects: dict[str, bytes] = {}
    for lot in range(NUM_LOTS - NUM_UNCOUNTED, NUM_LOTS):
        batch = asks(compiled.plan, compiled.source, lot).drop_columns([ASK.name])
        for field in compiled.schema:
            if field.name not in batch.schema.names:
                batch = set_column(batch, field, pa.nulls(batch.num_rows, field.type))
        reasons = pa.array(["rules:short"] + [None] * (batch.num_rows - 1), pa.string())
        encoded = encode(set_column(batch, REJECT, reasons), compiled.schema, lot, compiled.recipe.output)
        objects[f"kept/part-{lot:08d}.parquet"] = encoded.kept
        objects[str(encoded.rejected_name)] = encoded.rejected or b""
    manifest = Manifest(compiled.fingerprint, compiled.resolved(), compiled.identity)
    counted = NUM_LOTS - NUM_UNCOUNTED
    num_asks, rejected = counted * LOT_ROWS, {"rules:short": counted}
    manifest.totals = Summary(counted, num_asks, num_asks - counted, rejected, rejected_shards=counted)
    store = open_store(str(folder / "manifest"))
    manifest.save(store)
    return recipe, {**objects, "manifest.json": store.read("manifest.json")}


def _run(folder: Path, num_lots: int, lot_rows: int) -> str:
    """A finished run of short texts, every tenth ask rejected."""
    from tests.jobs.release.mixture.test_mixture import make_run, text

    texts = ["" if n % 10 == 3 else f"{text(n % 5000)} {n}" for n in range(num_lots * lot_rows)]
    uri = make_run(folder, texts, lot=lot_rows)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["recipe"] |= {"generator": {"kind": "canned"}, "method": None, "stages": [], "lot_size": lot_rows}
    manifest["totals"]["kept_bytes"] = sum(shard.stat().st_size for shard in (folder / "kept").iterdir())
    path.write_text(json.dumps(manifest))
    return uri


def _verb(*words: str, env: dict[str, str] | None = None) -> float:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", VERB, *words], env={**os.environ, **(env or {})}, capture_output=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return time.perf_counter() - started


def _audit(folder: Path) -> dict[str, Any]:
    uri = _run(folder / "audited", NUM_AUDITED, LOT_ROWS)
    with served(PagedStore(root=Path(uri), delay_s=DELAY_S)) as env:
        time.sleep(1)
        with mock.patch.dict(os.environ, env):
            in_turn_s = _one_after_another()
        audit_s = _verb("audit", "s3://mill", env=env)
    return {
        "what": f"audit of {NUM_AUDITED:,} lots of {LOT_ROWS} rows, kept and rejected, 40 ms a request, with its start",
        "value": f"{NUM_AUDITED / audit_s:.0f} lots/s",
        "peer": f"the same shards read one after another: {1 / in_turn_s:.0f} lots/s",
        "ratio": in_turn_s * NUM_AUDITED / audit_s,
        "target": ">= 500 lots/s",
    }


def _one_after_another() -> float:
    """Seconds a lot."""
    from gristmill.records.output.shard_reading import read_meta, read_shard
    from gristmill.records.stores.opening import open_store

    store = open_store("s3://mill")
    started = time.perf_counter()
    for lot in range(100):
        read_shard(store, f"kept/part-{lot:08d}.parquet")
        read_shard(store, read_meta(store, lot)["rejected"])
    return (time.perf_counter() - started) / 100


def _pack(folder: Path) -> dict[str, Any]:
    uri = _run(folder / "packed", NUM_PACKED, 2)
    pack_s = _verb("pack", uri, "--to", str(folder / "release"))
    return {
        "what": f"pack of {NUM_PACKED:,} lots of 2 rows, local disk, with the start of a local Ray",
        "value": f"{pack_s:.1f} s",
        "peer": "",
        "target": "< 15 s",
    }
