"""The parts of a source: inline items, data files of all formats, and data sets in packages.

A part is pinned when it is opened (gristmill.records.pins): a file that changes afterwards is noticed when it is read.
"""

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.errors import InputChanged
from gristmill.records.ids import fingerprint
from gristmill.records.pins import REMEDY, Pin
from gristmill.records.readers.arrow_values import json_texts
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table
from gristmill.records.readers.formats import ReadOptions
from gristmill.records.readers.parquet import open_parquet, parquet_errors, read_metadata
from gristmill.records.readers.places import DataFile
from gristmill.records.readers.row_changes import RowChanges
from gristmill.records.readers.row_formats import JsonLines, RowFormat, row_format
from gristmill.records.readers.streams import CHUNK_BYTES, ByteStream, Utf8, buffered, decompressed, lines_of, reading
from gristmill.records.stores.digest import NUM_HEX, digest_ends

WHAT = "source"  # in messages
BLOCK_LINES = 1024


class Part(ABC):
    """A range of numbered rows: a file, or the inline items."""

    name: str
    num_rows: int
    digest: str  # of the content; of a Parquet file only of its size and both ends
    pin: Pin | None = None  # of a file: each reading compares with the first

    @property
    def content(self) -> str:
        """The identity of every byte."""
        return self.digest

    @abstractmethod
    def rows(self, start: int, stop: int) -> list[str]:
        """Rows as JSON texts. The generator rejects a row that is not a JSON object."""

    def select(self, names: Collection[str]) -> None:  # noqa: B027 - only Parquet reads columns apart
        """Read only these columns of the rows, where that is cheaper."""


class Items(Part):
    """Inline items of the recipe."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.name, self.num_rows = "items", len(items)
        self.texts = [json.dumps({"text": i} if isinstance(i, str) else i, ensure_ascii=False) for i in items]
        self.digest = fingerprint(self.texts)

    def rows(self, start: int, stop: int) -> list[str]:
        return self.texts[start:stop]


class FileRows(Part):
    """The rows of a text file, plain or compressed.

    Opening it reads the file once, to count its rows. A cursor stays where the last reading ended, so that consecutive
    readings go on from there. Of plain lines of UTF-8 it keeps the offset of every 1,024th row; any other file is read
    from its start again when an earlier row is wanted.
    """

    pin: Pin

    def __init__(self, file: DataFile, options: ReadOptions, changes: RowChanges) -> None:
        self.name, self._changes = file.name, changes
        self.pin = Pin(file.store, file.name, file.entry.version, what=WHAT)
        self._compression, self._format = file.format.compression, row_format(file.format, options)
        self._offsets: np.ndarray | None = None  # of every 1,024th row, int64
        self._reset()
        raw, whole = hashlib.sha256(), self._format.hash()
        with reading(self._where), self.pin.open() as opened:
            stream = decompressed(_Tee(buffered(opened, file.store), raw.update), self._compression, self._where)
            if isinstance(self._format, JsonLines):
                self._count_lines(stream, self._format, whole)
            else:
                items = self._format.items(_Tee(stream, whole.update), self._where)
                self.num_rows = sum(1 for _ in items)
        self.pin.digest = raw.hexdigest()[:NUM_HEX]
        self.digest = whole.hexdigest()
        if self._changes:
            self.digest = fingerprint([self.digest, self._changes.literals])

    def _count_lines(self, stream: ByteStream, lines: RowFormat, whole: hashlib.blake2b) -> None:
        text, offsets, num_rows = Utf8(stream, lines.options.encoding, self._where), list[int](), 0
        for at, line in lines_of(text, text.num_mark):
            whole.update(line)
            whole.update(b"\n")
            if num_rows % BLOCK_LINES == 0:
                offsets.append(at)
            num_rows += 1
        self.num_rows = num_rows
        if text.is_plain and self._compression is None:
            self._offsets = np.array(offsets, np.int64)

    @property
    def _where(self) -> str:
        return self.pin.store.path(self.name)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_items": None, "_next": 0, "_stack": None}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._items: Iterator[Any] | None = None  # from row `_next` on
        self._next, self._stack = 0, ExitStack()

    def rows(self, start: int, stop: int) -> list[str]:
        with self._lock:
            try:
                with reading(self._where):
                    self._seek(start)
                    assert self._items is not None
                    items = list(islice(self._items, stop - start))
                self._next += len(items)
            except Exception as error:
                self._items = None
                self._stack.__exit__(type(error), error, error.__traceback__)  # raises InputChanged after a change
                raise
            if len(items) < stop - start:
                self._close()
                raise self.pin.changed("it has fewer rows")
            if self._next == self.num_rows:
                self._close()
            elif not self.pin.store.guards_reads:
                self.pin.check()
        return [self._changes.text(self._format.text(item), self._where) for item in items]

    def _seek(self, row: int) -> None:
        """Bring the cursor to a row."""
        is_near = self._items is not None and self._next <= row
        if not is_near or (self._offsets is not None and row - self._next > BLOCK_LINES):
            self._close()
            opened, store = self._stack.enter_context(self.pin.open()), self.pin.store
            if self._offsets is not None:
                block = row // BLOCK_LINES
                opened.seek(int(self._offsets[block]))
                self._items, self._next = (line for _, line in lines_of(buffered(opened, store))), block * BLOCK_LINES
            else:
                stream = decompressed(buffered(opened, store), self._compression, self._where)
                self._items, self._next = self._format.items(stream, self._where), 0
        assert self._items is not None
        self._next += sum(1 for _ in islice(self._items, row - self._next))

    def _close(self) -> None:
        self._items = None
        self._stack.close()


class _Tee:
    """A stream that shows all its bytes to a hash."""

    closed = False

    def __init__(self, stream: ByteStream, update: Callable[[bytes], object]) -> None:
        self._stream, self._update = stream, update

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        data = self._stream.read(size)
        self._update(data)
        return data

    def close(self) -> None:
        """The file is closed by its owner."""


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes without a logical type, or contain such."""
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if kind.num_fields:
        return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


class ParquetRows(Part):
    """A Parquet file; one row group at a time is in memory. Its `digest` covers its size and both ends."""

    pin: Pin

    def __init__(self, file: DataFile, changes: RowChanges) -> None:
        self.name, self.size, self._changes = file.name, file.entry.size, changes
        self.pin = Pin(file.store, file.name, file.entry.version, what=WHAT)
        with self.pin.open() as opened:
            self.digest = digest_ends(opened, self.size)
            opened.seek(0)
            metadata = read_metadata(opened, where=self._where)
            with parquet_errors(self._where):
                schema = metadata.schema.to_arrow_schema()
        self._names = schema.names
        if any(map(_holds_bytes, schema.types)):  # they were read otherwise before 0.3
            self.digest = fingerprint([self.digest, "texts of bytes"])
        if self._changes:
            self.digest = fingerprint([self.digest, self._changes.literals])
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.starts = np.cumsum([0, *sizes])
        self.num_rows = int(self.starts[-1])
        self._wanted: list[str] = changes.shown(self._names)
        self._group_cache: tuple[int, pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group_cache": None}

    @property
    def _where(self) -> str:
        return self.pin.store.path(self.name)

    @property
    def content(self) -> str:
        """The digest of the whole file where it has been read, else its version."""
        return self.pin.digest or self.pin.version

    def select(self, names: Collection[str]) -> None:
        self._wanted, self._group_cache = self._changes.wanted(self._names, names), None

    def _group(self, number: int) -> pa.Table:
        if self._group_cache is None or self._group_cache[0] != number:
            with self.pin.open() as opened, parquet_errors(self._where):
                file = open_parquet(opened, where=self._where)
                table = file.read_row_group(number, columns=self._wanted, use_threads=False)
                table = table.select([n for n in self._wanted if n in table.column_names])  # `a` reads `a.b` as well
                table.validate(full=True)
            self._group_cache = (number, table)
        return self._group_cache[1]

    def rows(self, start: int, stop: int) -> list[str]:
        texts: list[str] = []
        while start < stop:
            group = int(np.searchsorted(self.starts, start, side="right")) - 1
            part_stop = min(stop, int(self.starts[group + 1]))
            if self._wanted:
                table = self._group(group).slice(start - int(self.starts[group]), part_stop - start)
                texts += json_texts(table)
            else:
                texts += ["{}"] * (part_stop - start)
            start = part_stop
        if stop == self.num_rows:
            self._group_cache = None  # the last row was read; otherwise a source of many files would fill the memory
        return [self._changes.text(text, self._where) for text in texts]


class PackedRows(Part):
    """A data set in an installed package, such as package:help-topics."""

    def __init__(self, path: str, changes: RowChanges) -> None:
        self.name, self._changes = path, changes
        self._table: pa.Table | None = None
        self.num_rows = self._read().num_rows
        if changes:
            self.digest = fingerprint([self.digest, changes.literals])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def _read(self) -> pa.Table:
        if self._table is None:
            self._table = read_table(DataSpec(self.name))
            digest = digest_table(self._table)
            if self.__dict__.setdefault("_table_digest", digest) != digest:
                raise InputChanged(f"{WHAT} {self.name} changed since this run began (another package); {REMEDY}")
            self.__dict__.setdefault("digest", digest)
        return self._table

    def rows(self, start: int, stop: int) -> list[str]:
        rows = self._read().slice(start, stop - start).to_pylist()
        return [self._changes.text(json.dumps(row, ensure_ascii=False, default=str), self.name) for row in rows]


def part_of(file: DataFile, options: ReadOptions, renames: Mapping[str, str] | None) -> Part:
    """The rows of a data file, numbered; `renames`: see RowChanges."""
    changes = RowChanges(renames, file.partitions, hides_own=file.owner is not None)
    return ParquetRows(file, changes) if file.format.kind == "parquet" else FileRows(file, options, changes)
