"""Outputs of small runs, written without producing them, and their releases without some rows."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs.release.command import command as pack
from gristmill.records.lots import Plan, asks
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import OutputSpec, encode, put_kept
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import full_schema
from gristmill.records.stores.opening import open_store

LOT = 5  # rows of a lot


def ids_of_run(name: str, num: int) -> list[str]:
    source = open_source(SourceSpec(items=tuple(map(str, range(num)))))
    plan = Plan(hashlib.md5(name.encode()).hexdigest(), LOT, num, num, "canned", "m", "self_instruct")
    batches = [asks(plan, source, lot) for lot in range(plan.num_lots or 0)]
    return [i for batch in batches for i in batch.column("id").to_pylist()]


def make_run(
    folder: Path,
    sources: list[str],
    examples: list[list[str]] | None = None,
    others: list[str | None] | None = None,
    upstream: list[dict[str, Any]] | None = None,
    **recipe: Any,
) -> str:
    """A run's output of kept rows that were made from these; `others`: the second documents of pairs."""
    store, num = open_store(str(folder)), len(sources)
    plan = Plan(hashlib.md5(folder.name.encode()).hexdigest(), LOT, num, num, "canned", "m", "self_instruct")
    source = open_source(SourceSpec(items=tuple(map(str, range(num)))))
    payload = [pa.field("text", pa.string())]
    payload += [pa.field("example_ids", pa.list_(pa.string()))] if examples else []
    payload += [pa.field("other_source_id", pa.string())] if others else []
    schema = full_schema(payload, [])
    tables = {"name": folder.name, "generator": {"kind": "canned"}, "method": {"kind": "self_instruct"}, **recipe}
    run = Manifest(plan.fingerprint, tables, {"source": {"content": f"digest of {folder.name}"}}, "complete")
    run.inputs = {"source": {"way": "bytes", "upstream": upstream}} if upstream is not None else {}
    for lot in range(plan.num_lots or 0):
        batch = asks(plan, source, lot)
        rows = range(lot * LOT, lot * LOT + batch.num_rows)
        values: dict[str, Any] = {"text": pa.array([f"{folder.name} text {row}" for row in rows])}
        values["source_id"] = pa.array([sources[row] for row in rows], pa.string())
        if examples:
            values["example_ids"] = pa.array([examples[row] for row in rows], pa.list_(pa.string()))
        if others:
            values["other_source_id"] = pa.array([others[row] for row in rows], pa.string())
        columns = {name: batch.column(name) for name in batch.schema.names} | values
        encoded = encode(
            pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema), schema, lot, OutputSpec()
        )
        put_kept(store, encoded)
        run.totals.add(encoded.summary)
    run.save(store)
    return str(folder)


def pack_without(source: str | Path, to: Path, *entries: str) -> set[str]:
    """The ids of a release without these entries."""
    to.with_suffix(".txt").write_text("\n".join(entries))
    pack(str(source), str(to), without=str(to.with_suffix(".txt")))
    return released(to)


def released(release: Path) -> set[str]:
    return {i for path in release.glob("train-*") for i in pq.read_table(path, columns=["id"]).column(0).to_pylist()}
