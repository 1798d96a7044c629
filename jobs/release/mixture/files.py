"""Splits the data files of a mixture into chunks that fit a worker: Parquet row groups, ranges of lines, tables."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from gristmill.records.errors import UserError
from gristmill.records.literals import check_lines
from gristmill.records.readers.datasets import data_spec, read_table
from gristmill.records.readers.parquet import columns_of, open_parquet
from gristmill.records.stores.contract import Store

DATA = (".parquet", ".csv", ".jsonl", ".ndjson")
TEXTS = (".txt", ".md", ".rst")
LINE_BYTES = 16 << 20  # bytes of a range of lines
PEEK_BYTES = 1 << 20  # bytes at the start of a JSONL file that define its columns
NUM_THREADS = 16


@dataclass(frozen=True)
class Chunk:
    """A part of one file. Row numbers start at `first` (Parquet, tables); lines are numbered by their first byte."""

    kind: Literal["parquet", "json", "lines", "document", "table"]
    file: str  # name in the store; for a table its address
    first: int = 0
    start: int = 0  # row group (-1: all), or first byte
    stop: int = 0  # end byte, exclusive


def parquet_chunks(store: Store, names: Sequence[str]) -> tuple[list[Chunk], list[pa.Schema]]:
    """One chunk per row group, and the schema of each file. Reads footers only. Raises UserError for other files."""

    def read_footer(name: str) -> tuple[list[Chunk], pa.Schema]:
        try:
            with store.open(name) as file:
                metadata = pq.read_metadata(file)
                schema = metadata.schema.to_arrow_schema()
        except FileNotFoundError:
            raise UserError(f"{store.path(name)}: no such file") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{store.path(name)}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        chunks, first = [], 0
        for group in range(metadata.num_row_groups):
            chunks.append(Chunk("parquet", name, first, group))
            first += metadata.row_group(group).num_rows
        return chunks, schema

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        footers = list(pool.map(read_footer, names))
    return [chunk for chunks, _ in footers for chunk in chunks], [schema for _, schema in footers]


def line_chunks(kind: Literal["json", "lines"], name: str, size: int) -> list[Chunk]:
    return [Chunk(kind, name, start=at, stop=min(at + LINE_BYTES, size)) for at in range(0, size, LINE_BYTES)]


def json_schema(store: Store, name: str, size: int) -> pa.Schema:
    """The columns of a JSONL file, inferred from its first MiB. Timestamps stay strings, as in JSON."""
    lines = [line for _, line in lines_in(store, name, 0, min(size, PEEK_BYTES))]
    if not lines:
        return pa.schema([])
    schema = _json(store.path(name), lines, None).schema
    return pa.schema([(f.name, pa.string() if pa.types.is_timestamp(f.type) else f.type) for f in schema])


def lines_in(store: Store, name: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """(first byte, line) of the non-blank lines that start in [start, stop)."""
    with store.open(name) as file:
        at = max(start - 1, 0)
        file.seek(at)
        rest, is_first = b"", start > 0  # the byte before shows whether a line starts at `start`
        while chunk := file.read(1 << 20):
            *complete, rest = (rest + chunk).split(b"\n")
            for line in complete:
                if at >= stop:
                    return
                if line.strip() and not is_first:
                    yield at, line
                is_first = False
                at += len(line) + 1
            if at >= stop:
                return
        if rest.strip() and not is_first and at < stop:
            yield at, rest


def read_chunk(store: Store | None, chunk: Chunk, schema: pa.Schema | None, columns: Sequence[str] | None) -> pa.Table:
    """Rows of a chunk, with a column "" for their positions in the file, as strings. Raises UserError.

    `schema` applies to JSON files. `columns` restricts Parquet files.
    """
    if chunk.kind == "table":
        table = read_table(data_spec(chunk.file))
        return table.append_column("", pa.array([str(i) for i in range(table.num_rows)], pa.string()))
    assert store is not None
    where = store.path(chunk.file)
    try:
        if chunk.kind == "parquet":
            with store.open(chunk.file) as source, open_parquet(source) as file:
                if chunk.start < 0:
                    table = columns_of(file, columns)
                else:
                    table = file.read_row_group(chunk.start, columns=columns, use_threads=False)
            places = [str(chunk.first + i) for i in range(table.num_rows)]
            return table.append_column("", pa.array(places, pa.string()))
        if chunk.kind == "document":
            text = store.read(chunk.file).decode("utf-8", "replace")
            return pa.table({"text": [text], "": ["0"]})
        lines = list(lines_in(store, chunk.file, chunk.start, chunk.stop))
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{where}: cannot be read ({str(error).splitlines()[0]})") from None
    if chunk.kind == "json":
        table = _json(f"{where}, bytes {chunk.start:,} to {chunk.stop:,}", [line for _, line in lines], schema)
    else:
        table = pa.table({"text": pa.array([t.decode("utf-8", "replace").strip() for _, t in lines], pa.string())})
    return table.append_column("", pa.array([str(at) for at, _ in lines], pa.string()))


def _json(where: str, lines: Sequence[bytes], schema: pa.Schema | None) -> pa.Table:
    data = b"\n".join(lines).decode("utf-8", "replace").encode()
    if not lines:
        return (schema or pa.schema([])).empty_table()
    try:
        check_lines(data)
        table = pa.json.read_json(
            io.BytesIO(data),
            pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore" if schema else "infer"),
        )
    except (pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{where}: {str(error).splitlines()[0]}; correct the line, or convert the rows to Parquet"
        ) from None
    if table.num_rows != len(lines):
        raise UserError(f"{where}: {len(lines):,} lines hold {table.num_rows:,} objects; write one object per line")
    return table
