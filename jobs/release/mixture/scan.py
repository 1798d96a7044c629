"""The work of tasks for a mixture: collect what the draw needs of each row, and later read the drawn rows."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.cluster.shuffle import shuffle_keys, with_target
from gristmill.jobs.release.mixture.draw import Candidates
from gristmill.jobs.release.mixture.files import Chunk
from gristmill.jobs.release.mixture.parts import ROW_FIELDS, Part, content_hashes
from gristmill.jobs.release.mixture.spec import COPY, PART, TOKENS, WEIGHT
from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import REAL, SYNTHETIC
from gristmill.records.schema import with_images
from gristmill.records.words import num_tokens, text_key

SAMPLED_ROWS = 256  # rows of a chunk that are encoded to estimate the bytes per row in a shard
BLOBS = {  # array of `Candidates`: its dtype
    "ids": "S16",
    "contents": "S16",
    "keys": "<u8",
    "tokens": "<i8",
    "is_real": "?",
    "generation": "<i4",
}


def scan(part: Part, chunk: Chunk, payload: pa.Schema, text_column: str | None, seed: int) -> dict[str, Any]:
    """The arrays of `Candidates` for one chunk, as bytes.

    Also `bytes` and `memory`: the estimated bytes of a row in a shard, and in memory. With a take-down list also
    `stays`, bool: the rows that are not left out.
    """
    size, num_rows, num_bytes = 0.0, 0, 0
    pieces: dict[str, list[bytes]] = {name: [] for name in BLOBS}
    removal = None if part.removal is None else part.removal.counter(chunk.file)
    for rows in part.read(chunk, payload):
        arrays = traits(rows, payload, text_column, f"part '{part.title}', {chunk.file}")
        arrays["keys"] = shuffle_keys(rows.column("id").to_pylist(), seed, b"draw")
        for name, kind in BLOBS.items():
            pieces[name].append(np.ascontiguousarray(arrays[name], kind).tobytes())
        if not num_rows:
            sink = pa.BufferOutputStream()
            pq.write_table(rows.slice(0, SAMPLED_ROWS), sink, compression="zstd")
            size = sink.getvalue().size / max(1, min(rows.num_rows, SAMPLED_ROWS))
        num_rows += rows.num_rows
        num_bytes += rows.nbytes
        if removal is not None:
            removal.add(rows)
    blobs = {name: b"".join(parts) for name, parts in pieces.items()}
    facts = {"bytes": float(size), "memory": num_bytes / max(1, num_rows), **blobs}
    return facts if removal is None else facts | removal.facts()


def traits(rows: pa.Table, payload: pa.Schema, text_column: str | None, where: str) -> dict[str, np.ndarray]:
    """The arrays of `Candidates` that follow from the rows alone, by name.

    Raises UserError for rows without an id or an origin as gristmill writes them.
    """
    ids, origins = rows.column("id").to_pylist(), rows.column("origin").to_pylist()
    try:
        raw = b"".join([bytes.fromhex(row_id) for row_id in ids])
        if len(raw) != 16 * len(ids) or not set(origins) <= {REAL, SYNTHETIC}:
            raise ValueError
    except (ValueError, TypeError):
        raise UserError(f"{where}: rows without an id of 32 hex characters, or without an origin") from None
    if text_column:
        texts = rows.column(text_column).to_pylist()
        contents, tokens = [text_key(text) for text in texts], [num_tokens(text) for text in texts]
    else:
        contents, tokens = content_hashes(rows.select(payload.names)), [0] * len(ids)
    return {
        "ids": np.frombuffer(raw, "S16"),
        "contents": np.array(contents, "S16"),
        "tokens": np.array(tokens, np.int64),
        "is_real": np.array([origin == REAL for origin in origins], bool),
        "generation": rows.column("generation").to_numpy().astype(np.int32),
    }


def candidates(scans: Iterable[tuple[int, int, dict[str, Any]]]) -> Candidates:
    """Join the results of `scan` by chunk number. Each entry is (chunk number, part number, result)."""
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in (*BLOBS, "part", "chunk", "row")}
    for number, part, blobs in sorted(scans, key=lambda entry: entry[0]):
        for name, kind in BLOBS.items():
            arrays[name].append(np.frombuffer(blobs[name], kind))
        num = len(arrays["ids"][-1])
        arrays["part"].append(np.full(num, part, np.int32))
        arrays["chunk"].append(np.full(num, number, np.int32))
        arrays["row"].append(np.arange(num, dtype=np.int32))
        if "stays" in blobs:  # rows that a take-down leaves out are no candidates
            stays = np.frombuffer(blobs["stays"], "?")
            for columns in arrays.values():
                columns[-1] = columns[-1][stays]
    return Candidates(**{name: np.concatenate(parts) for name, parts in arrays.items()})


def release_schema(payload: pa.Schema, has_tokens: bool, has_copies: bool, has_weights: bool) -> pa.Schema:
    """Identity, provenance, name of the part and payload; tokens with a text; copy and weight as the policy needs."""
    fields = [*ROW_FIELDS, pa.field(PART, pa.string(), nullable=False), *payload]
    fields += [pa.field(TOKENS, pa.int32(), nullable=False)] if has_tokens else []
    fields += [pa.field(COPY, pa.int32(), nullable=False)] if has_copies else []
    fields += [pa.field(WEIGHT, pa.float64(), nullable=False)] if has_weights else []
    return _with_whole_numbers(with_images(pa.schema(fields)))


def _with_whole_numbers(schema: pa.Schema) -> pa.Schema:
    """`schema` with the metadata by which pandas reads seeds beside nulls (of real rows) as integers, not as floats."""
    column = {"name": "seed", "field_name": "seed", "pandas_type": "int64", "numpy_type": "Int64", "metadata": None}
    table = {"index_columns": [], "column_indexes": [], "columns": [column], "pandas_version": "2.0.0"}
    return schema.with_metadata({**(schema.metadata or {}), "pandas": json.dumps(table)})


def checksum(keys: np.ndarray) -> int:
    """Sum of the draw keys of rows. It reveals a file that changed between the two passes."""
    return int(keys.sum(dtype=np.uint64).astype(np.int64))


def drawn_rows(
    part: Part,
    chunk: Chunk,
    selection: dict[str, Sequence[Any]],
    schema: pa.Schema,
    payload: pa.Schema,
    text_column: str | None,
    seed: int,
    num_shards: int,
) -> pa.Table:
    """The drawn rows of a chunk in the release's `schema`, each with its target shard.

    `selection` holds `rows`, `times`, `weights` and `check`. Raises UserError when the chunk has changed.
    """
    at, times = np.array(selection["rows"], np.int64), np.array(selection["times"], np.int64)
    batches, first = list[pa.Table](), 0
    for batch in part.read(chunk, payload):
        within = at[(at >= first) & (at < first + batch.num_rows)] - first
        batches.append(batch.take(pa.array(within)))
        first += batch.num_rows
        if first > at.max(initial=-1):
            break
    rows = pa.concat_tables(batches)
    if not len(at) or rows.num_rows != len(at):
        raise UserError(f"part '{part.title}': {chunk.file} changed while it was packed; pack again")
    ids = rows.column("id").to_pylist()
    if checksum(shuffle_keys(ids, seed, b"draw")) != selection["check"]:
        raise UserError(f"part '{part.title}': {chunk.file} changed while it was packed; pack again")
    repeats = np.repeat(np.arange(len(at)), times)
    copies = np.arange(len(repeats)) - np.repeat(np.cumsum(times) - times, times)
    rows = rows.take(pa.array(repeats))
    columns = {PART: pa.array([part.title] * len(repeats), pa.string()), COPY: pa.array(copies.astype(np.int32))}
    columns[WEIGHT] = pa.array(np.array(selection["weights"], np.float64)[repeats])
    if text_column:
        tokens = [num_tokens(text) for text in rows.column(text_column).to_pylist()]
        columns[TOKENS] = pa.array(tokens, pa.int32())
    table = pa.table([columns[f.name] if f.name in columns else rows.column(f.name) for f in schema], schema=schema)
    names = [ids[row] if copy == 0 else f"{ids[row]}/{copy}" for row, copy in zip(repeats, copies)]
    return with_target(table.replace_schema_metadata(None), shuffle_keys(names, seed), num_shards)
