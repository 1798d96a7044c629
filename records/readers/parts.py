"""The parts of a source: inline items, text, JSONL and Parquet files, and data sets in packages.

A part is pinned when it is opened (gristmill.records.pins): a file that changes afterwards is noticed when it is read.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.errors import InputChanged
from gristmill.records.ids import fingerprint
from gristmill.records.pins import REMEDY, Pin
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table
from gristmill.records.readers.parquet import open_parquet, parquet_errors, read_metadata
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.digest import NUM_HEX, digest_ends

WHAT = "source"  # in messages
TEXT_ENDINGS = (".txt", ".md", ".rst")
LINE_ENDINGS = (".jsonl", ".ndjson", *TEXT_ENDINGS)
BLOCK_LINES = 1024
CHUNK_BYTES = 1 << 20  # of a file that is read at a time


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


class Items(Part):
    """Inline items of the recipe."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.name, self.num_rows = "items", len(items)
        self.texts = [json.dumps({"text": i} if isinstance(i, str) else i, ensure_ascii=False) for i in items]
        self.digest = fingerprint(self.texts)

    def rows(self, start: int, stop: int) -> list[str]:
        return self.texts[start:stop]


class Document(Part):
    """A text file as a single row."""

    pin: Pin

    def __init__(self, store: Store, entry: Entry) -> None:
        self.name, self.num_rows = entry.name, 1
        self.pin = Pin(store, entry.name, entry.version, what=WHAT)
        self.digest = hashlib.blake2b(self.pin.read(), digest_size=16).hexdigest()

    def rows(self, start: int, stop: int) -> list[str]:
        text = self.pin.read().decode("utf-8", errors="replace")
        return [json.dumps({"text": text}, ensure_ascii=False)]


class Lines(Part):
    """A JSONL or text file, a row per line, without blank lines. It keeps the offset of every 1,024th row."""

    pin: Pin

    def __init__(self, store: Store, entry: Entry) -> None:
        self.name = name = entry.name
        self.pin = Pin(store, name, entry.version, what=WHAT)
        self.is_text = name.endswith(TEXT_ENDINGS)
        offsets, self.num_rows = [], 0
        whole = hashlib.blake2b(name.rsplit("/", 1)[-1].rpartition(".")[2].encode(), digest_size=16)
        content = hashlib.sha256()
        with self.pin.open() as file:
            for at, line in _lines(file, 0, content.update):
                whole.update(line)
                whole.update(b"\n")
                if self.num_rows % BLOCK_LINES == 0:
                    offsets.append(at)
                self.num_rows += 1
        self.digest, self.pin.digest = whole.hexdigest(), content.hexdigest()[:NUM_HEX]
        self.offsets = np.array(offsets, dtype=np.int64)

    def rows(self, start: int, stop: int) -> list[str]:
        block = start // BLOCK_LINES
        texts: list[str] = []
        with self.pin.open() as file:
            for number, (_, line) in enumerate(_lines(file, int(self.offsets[block])), block * BLOCK_LINES):
                if number >= stop:
                    break
                if number >= start:
                    text = line.decode("utf-8", errors="replace").strip()
                    texts.append(json.dumps({"text": text}, ensure_ascii=False) if self.is_text else text)
        return texts


def _lines(
    file: Any, offset: int, each_chunk: Callable[[bytes], object] = lambda chunk: None
) -> Iterator[tuple[int, bytes]]:
    """(first byte, line) of the lines that are not blank, from `offset` on; `each_chunk` gets all bytes read."""
    file.seek(offset)
    pieces, at = list[bytes](), offset  # of the line at `at`, which may be many chunks long
    while chunk := file.read(CHUNK_BYTES):
        each_chunk(chunk)
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        for other in others:
            line = b"".join(pieces)
            if line.strip():
                yield at, line
            at += len(line) + 1
            pieces = [other]
    line = b"".join(pieces)
    if line.strip():
        yield at, line


class ParquetRows(Part):
    """A Parquet file; one row group at a time is in memory. Its `digest` covers its size and both ends."""

    pin: Pin

    def __init__(self, store: Store, entry: Entry) -> None:
        self.name, self.size = entry.name, entry.size
        self.pin = Pin(store, entry.name, entry.version, what=WHAT)
        with self.pin.open() as file:
            self.digest = digest_ends(file, entry.size)
            file.seek(0)
            metadata = read_metadata(file, where=store.path(entry.name))
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.starts = np.cumsum([0, *sizes])
        self.num_rows = int(self.starts[-1])
        self._group_cache: tuple[int, pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group_cache": None}

    @property
    def content(self) -> str:
        """The digest of the whole file where it has been read, else its version."""
        return self.pin.digest or self.pin.version

    def _group(self, number: int) -> pa.Table:
        if self._group_cache is None or self._group_cache[0] != number:
            where = self.pin.store.path(self.name)
            with self.pin.open() as file, parquet_errors(where):
                table = open_parquet(file, where=where).read_row_group(number, use_threads=False)
                table.validate(full=True)
            self._group_cache = (number, table)
        return self._group_cache[1]

    def rows(self, start: int, stop: int) -> list[str]:
        texts: list[str] = []
        while start < stop:
            group = int(np.searchsorted(self.starts, start, side="right")) - 1
            part_stop = min(stop, int(self.starts[group + 1]))
            table = self._group(group).slice(start - int(self.starts[group]), part_stop - start)
            texts += [json.dumps(row, ensure_ascii=False, default=str) for row in table.to_pylist()]
            start = part_stop
        if stop == self.num_rows:
            self._group_cache = None  # the last row was read; otherwise a source of many files would fill the memory
        return texts


class PackedRows(Part):
    """A data set in an installed package, such as package:help-topics."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._table: pa.Table | None = None
        self.num_rows = self._read().num_rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def _read(self) -> pa.Table:
        if self._table is None:
            self._table = read_table(DataSpec(self.name))
            digest = digest_table(self._table)
            if self.__dict__.setdefault("digest", digest) != digest:
                raise InputChanged(f"{WHAT} {self.name} changed since this run began (another package); {REMEDY}")
        return self._table

    def rows(self, start: int, stop: int) -> list[str]:
        rows = self._read().slice(start, stop - start).to_pylist()
        return [json.dumps(row, ensure_ascii=False, default=str) for row in rows]


def part_of(store: Store, entry: Entry, sample_by: str) -> Part | None:
    """The reader of a file, None for an unknown ending."""
    if entry.name.endswith(".parquet"):
        return ParquetRows(store, entry)
    if entry.name.endswith(TEXT_ENDINGS) and sample_by == "document":
        return Document(store, entry)
    return Lines(store, entry) if entry.name.endswith(LINE_ENDINGS) else None
