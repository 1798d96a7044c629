"""Splits the files of a mixture into chunks that workers read: row groups, ranges of lines, whole files, tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from gristmill.records.ordered_map import read_ahead
from gristmill.records.pins import Pin
from gristmill.records.readers.datasets import DataSpec, data_spec, read_table
from gristmill.records.readers.file_tables import FileTables
from gristmill.records.readers.formats import ReadOptions, format_of
from gristmill.records.readers.parquet import parquet_errors, read_metadata
from gristmill.records.readers.places import DataFile, partitions_of
from gristmill.records.readers.streams import Utf8
from gristmill.records.stores.contract import Entry, Store

LINE_BYTES = 16 << 20  # bytes of a range of lines
SWELLING = 4  # bytes in memory for each byte of a file, about
WHAT = "data"  # in messages


@dataclass(frozen=True)
class Chunk:
    """A part of one file, which is read in batches. Rows are numbered in their file, as in a source."""

    kind: Literal["parquet", "lines", "file", "table"]
    file: str  # name in the store; for a table its address
    first: int = 0  # number of the first row; of lines, known once the ranges before are counted
    start: int = 0  # row group (-1: all), or first byte
    stop: int = 0  # end byte, exclusive
    version: str | None = None  # of the file, as `Store.version` returns it; None for tables
    num_bytes: int = 0  # in memory, estimated; 0: unknown

    def tables(self, store: Store, options: ReadOptions) -> FileTables:
        """The reader of the chunk. Raises UserError when the file has changed since the pack began."""
        file_format = format_of(self.file)
        assert file_format is not None
        entry = Entry(self.file, 0, self.version or store.version(self.file))
        file = DataFile(store, entry, file_format, partitions_of(self.file))
        tables = FileTables(file, options, Pin(store, self.file, entry.version, what=WHAT))
        tables.has_places, tables.first = True, self.first
        if self.kind == "lines":
            tables.span = (self.start, self.stop)
        elif self.kind == "parquet" and self.start >= 0:
            tables.groups = (self.start,)
        return tables


def parquet_chunks(files: Sequence[DataFile]) -> tuple[list[Chunk], list[pa.Schema]]:
    """One chunk per row group, and the schema of each file. Raises UserError for other files."""

    def read_footer(file: DataFile) -> tuple[list[Chunk], pa.Schema]:
        with parquet_errors(file.address), file.store.open(file.name, file.entry.version) as opened:
            metadata = read_metadata(opened)
            written = metadata.schema.to_arrow_schema()
        # The notes of the file, such as the format of a release, and of its columns, such as that one holds money.
        columns = FileTables(file, ReadOptions()).schema()
        notes = {f.name: f.metadata for f in written}
        schema = pa.schema([f.with_metadata(notes.get(f.name)) for f in columns], written.metadata)
        chunks, first = [], 0
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            size = row_group.total_byte_size
            chunks.append(Chunk("parquet", file.name, first, group, version=file.entry.version, num_bytes=size))
            first += row_group.num_rows
        return chunks, schema

    footers = list(read_ahead(files[0].store if files else None, read_footer, files))
    return [chunk for chunks, _ in footers for chunk in chunks], [schema for _, schema in footers]


def text_chunks(files: Sequence[DataFile], options: ReadOptions) -> list[Chunk]:
    """Ranges of lines of plain UTF-8; any other file is one chunk, which is read from its start."""
    chunks = []
    for file in files:
        size, version = file.entry.size, file.entry.version
        if not _has_ranges(file, options):
            chunks.append(Chunk("file", file.name, version=version, num_bytes=SWELLING * size))
            continue
        for at in range(0, size, LINE_BYTES):
            stop = min(at + LINE_BYTES, size)
            chunks.append(Chunk("lines", file.name, start=at, stop=stop, version=version, num_bytes=stop - at))
    return chunks


def _has_ranges(file: DataFile, options: ReadOptions) -> bool:
    """Whether lines can be found from any byte on."""
    is_lines = file.format.kind == "lines" or (file.format.kind == "text" and options.sample_by == "line")
    if not is_lines or file.format.compression or options.encoding:
        return False
    with file.store.open(file.name, file.entry.version) as opened:
        return Utf8(opened, None, file.address).is_plain


def table_spec(address: str, options: ReadOptions) -> DataSpec:
    """The data of a table that is read as a whole: a packaged data set, or a side of a split."""
    return replace(data_spec(address), encoding=options.encoding, delimiter=options.delimiter)


def read_chunk(store: Store | None, chunk: Chunk, schema: pa.Schema | None, options: ReadOptions) -> Iterator[pa.Table]:
    """The rows of a chunk in the columns of `schema`, with a column "" for their places in the file, as texts.

    None: in their own columns and types. Raises UserError.
    """
    if chunk.kind == "table":
        table = read_table(table_spec(chunk.file, options))
        places = pa.array([str(place) for place in range(table.num_rows)], pa.string())
        yield (table if schema is None else table.select(schema.names)).append_column("", places)
        return
    assert store is not None
    yield from chunk.tables(store, options).batches(schema)
