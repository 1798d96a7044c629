"""Splits the data files of a mixture into chunks that fit a worker: Parquet row groups, ranges of lines, tables."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.json

from gristmill.records.errors import UserError
from gristmill.records.literals import check_lines
from gristmill.records.ordered_map import read_ahead
from gristmill.records.pins import Pin
from gristmill.records.readers.datasets import data_spec, read_table
from gristmill.records.readers.parquet import columns_of, open_parquet, parquet_errors, read_metadata
from gristmill.records.stores.contract import Entry, Store

DATA = (".parquet", ".csv", ".jsonl", ".ndjson")
TEXTS = (".txt", ".md", ".rst")
LINE_BYTES = 16 << 20  # bytes of a range of lines
PEEK_BYTES = 1 << 20  # bytes at the start of a JSONL file that define its columns
WHAT = "data"  # in messages


@dataclass(frozen=True)
class Chunk:
    """A part of one file. Row numbers start at `first` (Parquet, tables); lines are numbered by their first byte."""

    kind: Literal["parquet", "json", "lines", "document", "table"]
    file: str  # name in the store; for a table its address
    first: int = 0
    start: int = 0  # row group (-1: all), or first byte
    stop: int = 0  # end byte, exclusive
    version: str | None = None  # of the file, as `Store.version` returns it; None for tables
    num_bytes: int = 0  # in memory, estimated; 0: unknown

    def pin(self, store: Store) -> Pin:
        """The file as the pack began with it."""
        return Pin(store, self.file, self.version or store.version(self.file), what=WHAT)


def parquet_chunks(store: Store, files: Sequence[Entry]) -> tuple[list[Chunk], list[pa.Schema]]:
    """One chunk per row group, and the schema of each file. Reads footers only. Raises UserError for other files."""

    def read_footer(entry: Entry) -> tuple[list[Chunk], pa.Schema]:
        name = entry.name
        try:
            with store.open(name, entry.version) as file:
                metadata = read_metadata(file)
                with parquet_errors():
                    schema = metadata.schema.to_arrow_schema()
        except FileNotFoundError:
            raise UserError(f"{store.path(name)}: no such file") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{store.path(name)}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        chunks, first = [], 0
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            size = row_group.total_byte_size
            chunks.append(Chunk("parquet", name, first, group, version=entry.version, num_bytes=size))
            first += row_group.num_rows
        return chunks, schema

    footers = list(read_ahead(store, read_footer, files))
    return [chunk for chunks, _ in footers for chunk in chunks], [schema for _, schema in footers]


def line_chunks(kind: Literal["json", "lines"], file: Entry) -> list[Chunk]:
    chunks = []
    for at in range(0, file.size, LINE_BYTES):
        stop = min(at + LINE_BYTES, file.size)
        chunks.append(Chunk(kind, file.name, start=at, stop=stop, version=file.version, num_bytes=stop - at))
    return chunks


def json_schema(store: Store, file: Entry) -> pa.Schema:
    """The columns of a JSONL file, inferred from its first MiB. Timestamps stay strings, as in JSON."""
    with store.open(file.name, file.version) as opened:
        lines = [line for _, line in lines_in(opened, 0, min(file.size, PEEK_BYTES))]
    if not lines:
        return pa.schema([])
    schema = _json(store.path(file.name), lines, None).schema
    return pa.schema([(f.name, pa.string() if pa.types.is_timestamp(f.type) else f.type) for f in schema])


def lines_in(file: Any, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """(first byte, line) of the non-blank lines that start in [start, stop)."""
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
            with chunk.pin(store).open() as source, open_parquet(source) as file:
                if chunk.start < 0:
                    table = columns_of(file, columns)
                else:
                    table = file.read_row_group(chunk.start, columns=columns, use_threads=False)
            places = [str(chunk.first + i) for i in range(table.num_rows)]
            return table.append_column("", pa.array(places, pa.string()))
        if chunk.kind == "document":
            text = chunk.pin(store).read().decode("utf-8", "replace")
            return pa.table({"text": [text], "": ["0"]})
        with chunk.pin(store).open() as source:
            lines = list(lines_in(source, chunk.start, chunk.stop))
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
