"""What workers do for a mixture: note of each row what the draw needs, and later make the rows of the release."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs.release.command import place, placed
from gristmill.jobs.release.mixture.draw import Candidates
from gristmill.jobs.release.mixture.files import Chunk
from gristmill.jobs.release.mixture.parts import OF_ROWS, Part, content_hashes
from gristmill.jobs.release.mixture.spec import COPY, PART, TOKENS, WEIGHT
from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import REAL, SYNTHETIC
from gristmill.records.schema import with_images
from gristmill.records.words import num_tokens, text_key

SAMPLED_ROWS = 256  # of a chunk, to know how large its rows are in a shard
BLOBS = {"ids": "S16", "twins": "S16", "keys": "<u8", "tokens": "<i8", "is_real": "?", "generation": "<i4"}


def scan(part: Part, chunk: Chunk, payload: pa.Schema, text_column: str | None, seed: int) -> dict[str, Any]:
    """The arrays of `Candidates` for one chunk, as bytes, and `bytes`, about what a row takes in a shard."""
    rows = part.read(chunk, payload)
    found = traits(rows, payload, text_column, f"part '{part.title}', {chunk.file}")
    found["keys"] = place(rows.column("id").to_pylist(), seed, b"draw")
    sink = pa.BufferOutputStream()
    pq.write_table(rows.slice(0, SAMPLED_ROWS), sink, compression="zstd")
    size = sink.getvalue().size / max(1, min(rows.num_rows, SAMPLED_ROWS))
    blobs = {name: np.ascontiguousarray(found[name], kind).tobytes() for name, kind in BLOBS.items()}
    return {"bytes": float(size), **blobs}


def traits(rows: pa.Table, payload: pa.Schema, text_column: str | None, where: str) -> dict[str, np.ndarray]:
    """All arrays of `Candidates` that rows tell themselves, by name. Raises UserError for rows that are not ours."""
    ids, origins = rows.column("id").to_pylist(), rows.column("origin").to_pylist()
    try:
        raw = b"".join([bytes.fromhex(one) for one in ids])
        if len(raw) != 16 * len(ids) or not set(origins) <= {REAL, SYNTHETIC}:
            raise ValueError
    except (ValueError, TypeError):
        raise UserError(f"{where}: rows without an id of 32 hex characters, or without an origin") from None
    if text_column:
        texts = rows.column(text_column).to_pylist()
        twins, tokens = [text_key(text) for text in texts], [num_tokens(text) for text in texts]
    else:
        twins, tokens = content_hashes(rows.select(payload.names)), [0] * len(ids)
    return {
        "ids": np.frombuffer(raw, "S16"),
        "twins": np.array(twins, "S16"),
        "tokens": np.array(tokens, np.int64),
        "is_real": np.array([origin == REAL for origin in origins], bool),
        "generation": rows.column("generation").to_numpy().astype(np.int32),
    }


def candidates(found: Iterable[tuple[int, int, dict[str, Any]]]) -> Candidates:
    """One line of all chunks' rows, in order of (chunk number, part, what `scan` gave)."""
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in (*BLOBS, "part", "chunk", "row")}
    for number, part, blobs in sorted(found, key=lambda one: one[0]):
        for name, kind in BLOBS.items():
            arrays[name].append(np.frombuffer(blobs[name], kind))
        num = len(arrays["ids"][-1])
        arrays["part"].append(np.full(num, part, np.int32))
        arrays["chunk"].append(np.full(num, number, np.int32))
        arrays["row"].append(np.arange(num, dtype=np.int32))
    return Candidates(**{name: np.concatenate(parts) for name, parts in arrays.items()})


def release_schema(payload: pa.Schema, has_tokens: bool, has_copies: bool, has_weights: bool) -> pa.Schema:
    """Identity, provenance, the part's name, payload; tokens of the text; copy and weight where a policy made them."""
    fields = [*OF_ROWS, pa.field(PART, pa.string(), nullable=False), *payload]
    fields += [pa.field(TOKENS, pa.int32(), nullable=False)] if has_tokens else []
    fields += [pa.field(COPY, pa.int32(), nullable=False)] if has_copies else []
    fields += [pa.field(WEIGHT, pa.float64(), nullable=False)] if has_weights else []
    return with_images(pa.schema(fields))


def checksum(keys: np.ndarray) -> int:
    """Of drawn rows: the sum of their keys. Tells whether a file was changed between the draw and the writing."""
    return int(keys.sum(dtype=np.uint64).astype(np.int64))


def released(
    part: Part,
    chunk: Chunk,
    taken: dict[str, Sequence[Any]],
    schema: pa.Schema,
    payload: pa.Schema,
    text_column: str | None,
    seed: int,
    num_shards: int,
) -> pa.Table:
    """The rows of a chunk that were drawn, as they stand in the release, with the shard that each goes to.

    `taken` holds `rows`, `times`, `weights` and their `check`. Raises UserError when the chunk has changed.
    """
    whole = part.read(chunk, payload)
    at, times = np.array(taken["rows"], np.int64), np.array(taken["times"], np.int64)
    if not len(at) or at.max() >= whole.num_rows:
        raise UserError(f"part '{part.title}': {chunk.file} was changed while it was packed; pack again")
    rows = whole.take(pa.array(at))
    ids = rows.column("id").to_pylist()
    if checksum(place(ids, seed, b"draw")) != taken["check"]:
        raise UserError(f"part '{part.title}': {chunk.file} was changed while it was packed; pack again")
    again = np.repeat(np.arange(len(at)), times)
    copies = np.arange(len(again)) - np.repeat(np.cumsum(times) - times, times)
    rows = rows.take(pa.array(again))
    columns = {PART: pa.array([part.title] * len(again), pa.string()), COPY: pa.array(copies.astype(np.int32))}
    columns[WEIGHT] = pa.array(np.array(taken["weights"], np.float64)[again])
    if text_column:
        tokens = [num_tokens(text) for text in rows.column(text_column).to_pylist()]
        columns[TOKENS] = pa.array(tokens, pa.int32())
    table = pa.table([columns[f.name] if f.name in columns else rows.column(f.name) for f in schema], schema=schema)
    names = [one if copy == 0 else f"{one}/{copy}" for one, copy in zip((ids[i] for i in again), copies)]
    return placed(table.replace_schema_metadata(None), place(names, seed), num_shards)
