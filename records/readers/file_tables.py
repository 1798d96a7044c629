"""The rows of data files as Arrow tables: for training, evaluation and mixtures.

    tables = FileTables(file, ReadOptions())
    schema = tables.schema()                     # reads a text file to its end, of Parquet the footer
    for table in tables.batches(schema): ...     # one batch is in memory at a time

A row that cannot be read raises UserError with the address of the file and the number of the row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.records.pins import Pin
from gristmill.records.readers.arrow_columns import array_as, array_of, unified_schema
from gristmill.records.readers.arrow_values import is_bytes, is_storable, plain_type, texts_of_bytes
from gristmill.records.readers.column_types import Misfit, as_type, values_by_name
from gristmill.records.readers.csv_tables import BadCells, tables_of_cells
from gristmill.records.readers.formats import ReadOptions
from gristmill.records.readers.parquet import open_parquet, parquet_errors
from gristmill.records.readers.places import DataFile
from gristmill.records.readers.row_changes import RowChanges, clash, equals_text
from gristmill.records.readers.row_formats import CsvFile, JsonLines, RowFormat, row_format
from gristmill.records.readers.streams import (
    Utf8,
    buffered,
    decompressed,
    encoding_error,
    line_blocks,
    lines_between,
    reading,
)

BATCH_BYTES = 1 << 20  # of the items of a batch, about: larger ones leave the cache of a core
BATCH_ROWS = 1 << 16
BLOCK_LINES = 1024  # of a range that are decoded at a time
PEEKED_ROWS = 256  # of a column of bytes, to tell whether it holds texts


class FileTables:
    """The rows of one file. `texts` are columns of CSV that stay texts, whatever they look like."""

    def __init__(
        self, file: DataFile, options: ReadOptions, pin: Pin | None = None, texts: frozenset[str] = frozenset()
    ) -> None:
        self.file, self.options, self.texts = file, options, texts
        self.pin = pin or Pin(file.store, file.name, file.entry.version, what="data")
        self.format: RowFormat | None = None if self.is_parquet else row_format(file.format, options)
        self.has_places = False  # whether a column "" bears the place of each row in the file, as text
        self.first = 0  # place of the first row that is read
        self.num_rows = 0  # that `batches` has read, but of CSV and Parquet
        self.span: tuple[int, int] | None = None  # read only the lines that start in this range of bytes
        self.groups: Sequence[int] | None = None  # read only these row groups
        self.names: dict[str, None] = {}  # of all columns of the rows read so far, in order
        self.changes = RowChanges(partitions=file.partitions, hides_own=file.owner is not None)

    @property
    def is_parquet(self) -> bool:
        return self.file.format.kind == "parquet"

    @property
    def has_types(self) -> bool:
        """Whether the file states the types of its values, as CSV does not."""
        return self.format is None or self.format.typed

    @property
    def where(self) -> str:
        return self.file.address

    def schema(self) -> pa.Schema:
        """The columns, in types that hold all values. Columns of Gristmill in its own outputs are left out."""
        if self.is_parquet:
            with self._parquet() as file:
                return self._parquet_schema(file)
        schema = unified_schema([table.schema for table in self.batches()])
        return pa.schema([field for field in schema if field.name])

    def batches(self, schema: pa.Schema | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows in order, in bounded memory.

        With a `schema`, the columns of the batches are those, null where the file lacks one. Without one, each batch of
        a text file has the columns and types of its own rows, restricted to `columns` if given. Raises UserError, also
        for a value that does not fit the schema.
        """
        if self.is_parquet:
            yield from self._parquet_batches(schema, columns)
        else:
            yield from self._row_batches(schema, columns)

    # Text formats

    def _row_batches(self, schema: pa.Schema | None, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        if isinstance(self.format, CsvFile):
            yield from self._csv_batches(self.format, schema, columns)
            return
        rows, places, size, is_empty = list[dict[str, Any]](), list[int](), 0, True
        self.num_rows = 0
        for block_places, block, num_bytes in self._blocks():
            rows += block
            places += block_places
            size += num_bytes
            if size >= BATCH_BYTES or len(rows) >= BATCH_ROWS:
                yield self._numbered(self._table(rows, schema, columns, places), len(rows))
                rows, places, size, is_empty = [], [], 0, False
        if rows:
            yield self._numbered(self._table(rows, schema, columns, places), len(rows))
        elif is_empty:
            yield self._placed((schema or pa.schema([])).empty_table(), [])

    def _csv_batches(
        self, rows_of: CsvFile, schema: pa.Schema | None, columns: Sequence[str] | None
    ) -> Iterator[pa.Table]:
        folder_texts, first = dict(self.file.partitions), 0
        with reading(self.where), self.pin.open() as opened:
            stream = decompressed(buffered(opened, self.file.store), self.file.format.compression, self.where)
            rows = rows_of.cells(stream, self.where)
            try:
                for cells in tables_of_cells(rows, BATCH_BYTES):
                    for name, text in folder_texts.items():
                        present = cells.column(name) if name in cells.column_names else None
                        column = self._with_folder_text(present, name, text, cells.num_rows)
                        cells = cells.drop_columns([name] if present is not None else []).append_column(name, column)
                    self.names |= dict.fromkeys(cells.column_names)
                    places = range(first, first + cells.num_rows)
                    table = self._typed(dict(zip(cells.column_names, cells.columns)), schema, columns, places)
                    yield self._placed(table, places)
                    first += cells.num_rows
            except BadCells as error:
                reason = f"row {error.place:,} cannot be read ({error}); correct or remove it"
                raise UserError(f"{self.where}: {reason}") from None
            if not first:
                self.names |= dict.fromkeys(rows.names)
                empty = pa.schema([(name, pa.null()) for name in rows.names]) if schema is None else schema
                yield self._placed(empty.empty_table(), [])

    def _blocks(self) -> Iterator[tuple[Sequence[int], list[dict[str, Any]], int]]:
        """(places, rows, bytes) of rows that follow one another."""
        assert self.format is not None
        with reading(self.where), self.pin.open() as opened:
            if self.span:
                lines = lines_between(opened, *self.span)
                while block := list(islice(lines, BLOCK_LINES)):
                    starts, items = [place for place, _ in block], [line for _, line in block]
                    yield starts, self._decoded(items, starts), sum(map(len, items))
                return
            stream = decompressed(buffered(opened, self.file.store), self.file.format.compression, self.where)
            first = 0
            if isinstance(self.format, JsonLines):
                for block_lines in line_blocks(Utf8(stream, self.options.encoding, self.where)):
                    items = [line for line in block_lines if line and not line.isspace()]
                    places = range(first, first + len(items))
                    yield places, self._decoded(items, places), sum(map(len, items))
                    first += len(items)
                return
            rest = self.format.items(stream, self.where)
            while items := list(islice(rest, self.format.block_rows)):
                places = range(first, first + len(items))
                yield places, self._decoded(items, places), sum(map(self.format.size, items))
                first += len(items)

    def _decoded(self, items: list[Any], places: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of items, changed. Raises UserError that names the first faulty one."""
        assert self.format is not None
        try:
            rows = self.format.rows(items)
        except ValueError:
            rows = [self._row(item, place) for item, place in zip(items, places)]
        return [self.changes.row(row, self.where) for row in rows] if self.changes else rows

    def _row(self, item: Any, place: int) -> dict[str, Any]:
        assert self.format is not None
        try:
            return self.format.row(item)
        except UnicodeDecodeError as error:
            raise encoding_error(self.where, f"byte {place + error.start:,} is not utf-8", item) from None
        except ValueError as error:
            what = f"the line at byte {place:,}" if self.span else f"row {place:,}"
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.where}: {what} cannot be read ({reason}); correct or remove it") from None

    def _numbered(self, table: pa.Table, num_rows: int) -> pa.Table:
        """The next rows with their numbers; messages on a range of lines name bytes. Rows may have no column."""
        at = self.first + self.num_rows
        self.num_rows += num_rows
        return self._placed(table, range(at, at + num_rows))

    def _placed(self, table: pa.Table, places: Sequence[int]) -> pa.Table:
        if not self.has_places:
            return table
        column = pa.array([str(place) for place in places], pa.string())
        return table.append_column("", column) if table.column_names else pa.table({"": column})

    def _table(
        self,
        rows: list[dict[str, Any]],
        schema: pa.Schema | None,
        columns: Sequence[str] | None,
        places: Sequence[int],
    ) -> pa.Table:
        names = list(dict.fromkeys(chain.from_iterable(rows)))
        self.names |= dict.fromkeys(names)
        wanted = schema.names if schema is not None else [n for n in names if columns is None or n in columns]
        return self._typed(dict(zip(wanted, values_by_name(rows, wanted))), schema, columns, places)

    def _typed(
        self,
        values: Mapping[str, Sequence[Any]],
        schema: pa.Schema | None,
        columns: Sequence[str] | None,
        places: Sequence[int],
    ) -> pa.Table:
        """Columns of values, or of cells, in the types of the schema, else in those that hold them."""
        folder_texts, arrays = dict(self.file.partitions), list[pa.Array]()
        if schema is None:
            names = [n for n in values if columns is None or n in columns]
            arrays = [
                array_as(values[n], pa.string())
                if n in self.texts
                else array_of(values[n], self.has_types or n in folder_texts)
                for n in names
            ]
            return pa.table(arrays, names=names)
        arrays = []
        for field in schema:
            if field.name not in values:
                arrays.append(pa.nulls(len(places), field.type))
                continue
            try:
                arrays.append(array_as(values[field.name], field.type, self.has_types or field.name in folder_texts))
            except ValueError as error:
                span = f"{'bytes' if self.span else 'rows'} {places[0]:,} to {places[-1]:,}"
                raise Misfit(
                    f"{self.where}, {span}: column '{field.name}' is no {field.type} ({error})", field.name
                ) from None
        return pa.Table.from_arrays(arrays, schema=schema)

    # Parquet

    @contextmanager
    def _parquet(self) -> Iterator[Any]:
        with self.pin.open() as opened, parquet_errors(self.where):
            yield open_parquet(opened, where=self.where)

    def _parquet_schema(self, file: Any, columns: Sequence[str] | None = None) -> pa.Schema:
        """The columns that are read by default, or those of `columns` that the file has."""
        names = [field.name for field in file.schema_arrow if field.type != pa.struct([])]  # that would hold nothing
        shown = self.changes.shown(names)
        folder_columns = [name for name, _ in self.file.partitions if name not in names]
        self.names |= dict.fromkeys([*shown, *(name for name in names if name in (columns or ())), *folder_columns])
        read = [name for name in names if name in (shown if columns is None else columns)]
        fields = [(name, self._kind(file, name)) for name in read]
        fields += [(name, pa.string()) for name in folder_columns if columns is None or name in columns]
        return pa.schema(fields, metadata=file.schema_arrow.metadata)

    def _kind(self, file: Any, name: str) -> pa.DataType:
        """The type of a column: text for bytes that are texts, and where the type cannot be stored."""
        kind = file.schema_arrow.field(name).type
        if is_bytes(kind):
            peeked = next(file.iter_batches(PEEKED_ROWS, columns=[name], use_threads=False), None)
            is_text = peeked is not None and texts_of_bytes(pa.chunked_array([peeked.column(0)])) is not None
            return pa.string() if is_text else pa.binary()
        return plain_type(kind) if is_storable(kind) else pa.string()

    def _parquet_batches(self, schema: pa.Schema | None, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        with self._parquet() as file:
            whole = self._parquet_schema(file, columns) if schema is None else schema
            folder_texts = dict(self.file.partitions)
            names = [n for n in file.schema_arrow.names if n in whole.names or n in folder_texts]
            at = self.first
            groups = range(file.metadata.num_row_groups) if self.groups is None else self.groups
            for group in groups:
                read = file.read_row_group(group, columns=names, use_threads=False)
                read.validate(full=True)
                num_rows = file.metadata.row_group(group).num_rows
                arrays = []
                for field in whole:
                    column = read.column(field.name) if field.name in read.column_names else None
                    arrays.append(self._column(column, field, num_rows, folder_texts))
                yield self._placed(pa.Table.from_arrays(arrays, schema=whole), range(at, at + num_rows))
                at += num_rows
            if not groups:
                yield self._placed(whole.empty_table(), [])

    def _column(
        self, column: pa.ChunkedArray | None, field: pa.Field, num_rows: int, folder_texts: dict[str, str | None]
    ) -> pa.ChunkedArray:
        if field.name in folder_texts:
            column = self._with_folder_text(column, field.name, folder_texts[field.name], num_rows)
        if column is None:
            return pa.chunked_array([pa.nulls(num_rows, field.type)])
        try:
            return as_type(column, field.type)
        except ValueError as error:
            message = f"{self.where}: column '{field.name}' is no {field.type} ({error}); leave it out"
            raise Misfit(message, field.name) from None

    def _with_folder_text(
        self, column: pa.ChunkedArray | None, name: str, text: str | None, num_rows: int
    ) -> pa.ChunkedArray:
        """A column that the name of the folder states, too; the values of the file are the same, or null."""
        if column is None or column.null_count == num_rows:
            return pa.chunked_array([pa.array([text] * num_rows, pa.string())])
        for value in pc.unique(column).to_pylist():
            if value is not None and not equals_text(value, text):
                raise clash(name, value, text, self.where).without_key()
        return column.fill_null(pc.cast(pa.scalar(text), column.type)) if column.null_count else column
