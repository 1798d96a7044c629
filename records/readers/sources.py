"""Sources of asks: inline items, text, JSONL and Parquet files, local or on S3, and data sets in packages.

A source is a numbered list of rows that can be read from any row on, so that a resumed run starts in the middle.
Its memory grows with files and blocks of lines, never with rows.
"""

import glob
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.readers.datasets import PACKAGE, PACKAGED, DataSpec, digest_table, read_table
from gristmill.records.readers.parquet import open_parquet, parquet_errors
from gristmill.records.spec import nearest
from gristmill.records.stores.contract import Store
from gristmill.records.stores.digest import digest_object
from gristmill.records.stores.opening import open_store, split

TEXT_ENDINGS = (".txt", ".md", ".rst")
LINE_ENDINGS = (".jsonl", ".ndjson", *TEXT_ENDINGS)
BLOCK_LINES = 1024


@dataclass(frozen=True)
class SourceSpec:
    """`[source]` of a recipe: either `items` or `path`."""

    items: tuple[Any, ...] = ()  # tables, or strings, which become {"text": ...}
    path: str | None = None  # a file, a folder or a glob, local or s3://; or package:help-topics, ...
    sample_by: Literal["line", "document"] = "line"  # how text files are split, as in `datasets`
    id_column: str | None = None  # column of `source_id`; default: file and row number
    carry: tuple[str, ...] = ()  # columns copied to the output as payload
    samples: int = 1  # asks per source row
    cycle: bool = False  # repeat the rows until a limit is reached; needs a limit

    def __post_init__(self) -> None:
        if bool(self.items) == bool(self.path):
            raise ValueError("set either 'items' or 'path'")
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if self.cycle and self.samples != 1:
            raise ValueError("samples has no effect with cycle = true, which repeats the rows until a limit is reached")
        for item in self.items:
            if not isinstance(item, str | dict):
                raise ValueError(f"items must be strings or tables, not {type(item).__name__} {item!r}")


class Part(ABC):
    """A range of numbered rows: a file, or the inline items."""

    name: str
    num_rows: int
    digest: str

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

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.num_rows = store, name, 1
        self.digest = hashlib.blake2b(store.read(name), digest_size=16).hexdigest()

    def rows(self, start: int, stop: int) -> list[str]:
        text = self.store.read(self.name).decode("utf-8", errors="replace")
        return [json.dumps({"text": text}, ensure_ascii=False)]


class Lines(Part):
    """A JSONL or text file, a row per line, without blank lines. It keeps the offset of every 1,024th row."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.is_text = name.endswith(TEXT_ENDINGS)
        offsets, self.num_rows = [], 0
        whole = hashlib.blake2b(name.rsplit("/", 1)[-1].rpartition(".")[2].encode(), digest_size=16)
        for at, line in self._lines(0):
            whole.update(line)
            whole.update(b"\n")
            if self.num_rows % BLOCK_LINES == 0:
                offsets.append(at)
            self.num_rows += 1
        self.digest = whole.hexdigest()
        self.offsets = np.array(offsets, dtype=np.int64)

    def _lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        with self.store.open(self.name) as file:
            file.seek(offset)
            rest, at = b"", offset
            while chunk := file.read(1 << 20):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield at, line
                    at += len(line) + 1
            if rest.strip():
                yield at, rest

    def rows(self, start: int, stop: int) -> list[str]:
        block = start // BLOCK_LINES
        texts: list[str] = []
        for number, (_, line) in enumerate(self._lines(int(self.offsets[block])), block * BLOCK_LINES):
            if number >= stop:
                break
            if number >= start:
                text = line.decode("utf-8", errors="replace").strip()
                texts.append(json.dumps({"text": text}, ensure_ascii=False) if self.is_text else text)
        return texts


class ParquetRows(Part):
    """A Parquet file; one row group at a time is in memory."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        import pyarrow.parquet as pq

        self.store, self.name = store, name
        self.digest = digest_object(store, name, size)
        with parquet_errors(store.path(name)), store.open(name) as file:
            metadata = pq.read_metadata(file)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.starts = np.cumsum([0, *sizes])
        self.num_rows = int(self.starts[-1])
        self._group_cache: tuple[int, pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group_cache": None}

    def _group(self, number: int) -> pa.Table:
        if self._group_cache is None or self._group_cache[0] != number:
            with self.store.open(self.name) as file:
                where = self.store.path(self.name)
                with parquet_errors(where):
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
        self.digest = digest_table(self._read())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def _read(self) -> pa.Table:
        if self._table is None:
            self._table = read_table(DataSpec(self.name))
        return self._table

    def rows(self, start: int, stop: int) -> list[str]:
        rows = self._read().slice(start, stop - start).to_pylist()
        return [json.dumps(row, ensure_ascii=False, default=str) for row in rows]


class Source:
    """All parts in order, as a numbered list of rows."""

    def __init__(self, parts: Sequence[Part], id_column: str | None) -> None:
        self.parts = parts
        self.id_column = id_column
        self.starts = np.cumsum([0, *(p.num_rows for p in parts)])
        self.num_rows = int(self.starts[-1])

    def digest(self) -> str:
        """The identity of the content; it does not depend on the location of the files."""
        return fingerprint([p.digest for p in self.parts])

    def rows(self, start: int, stop: int) -> list[tuple[str, str]]:
        """(source_id, JSON text) of rows start..stop-1."""
        rows: list[tuple[str, str]] = []
        while start < stop:
            number = int(np.searchsorted(self.starts, start, side="right")) - 1
            part, first = self.parts[number], int(self.starts[number])
            part_stop = min(stop, int(self.starts[number + 1]))
            for at, text in enumerate(part.rows(start - first, part_stop - first), start - first):
                rows.append((self._id(part, at, text), text))
            start = part_stop
        return rows

    def ask_rows(self, start: int, stop: int, num_rows: int) -> list[tuple[str, str]]:
        """(source id, JSON text) of asks [start, stop), which cycle through the first `num_rows` rows.

        Each row is read once, however often the asks cycle.
        """
        if stop - start >= num_rows:
            whole = self.rows(0, num_rows)
            return [whole[at % num_rows] for at in range(start, stop)]
        place = start % num_rows
        part_stop = place + stop - start
        if part_stop <= num_rows:
            return self.rows(place, part_stop)
        return [*self.rows(place, num_rows), *self.rows(0, part_stop - num_rows)]

    def _id(self, part: Part, at: int, text: str) -> str:
        if self.id_column:
            try:
                if (value := json.loads(text)[self.id_column]) is not None:
                    return str(value)
            except (ValueError, KeyError, TypeError, RecursionError):
                pass  # the generator rejects this row; its position is the best id
        return f"{part.name}:{at}"


def open_source(spec: SourceSpec) -> Source:
    """Find and number the rows. Raises UserError when a file is missing, unreadable or empty."""
    if spec.items:
        return Source([Items(spec.items)], spec.id_column)
    assert spec.path is not None
    if (name := spec.path.removeprefix(PACKAGE)) != spec.path:
        if name not in PACKAGED:
            raise UserError(f"source.path: no data set '{spec.path}'{nearest(name, PACKAGED)}")
        return Source([PackedRows(spec.path)], spec.id_column)
    try:
        files = find_files(spec.path)
        parts = [part for place in files if (part := _part(*place, spec.sample_by)) is not None]
    except PermissionError as error:
        raise UserError(f"source.path {spec.path}: {error}") from None
    source = Source(parts, spec.id_column)
    if not parts:
        raise UserError(f"source.path {spec.path}: it has no .jsonl, .ndjson, .parquet, .txt, .md or .rst file")
    if source.num_rows == 0:
        raise UserError(f"source.path {spec.path}: the source is empty")
    return source


def _part(store: Store, name: str, size: int, sample_by: str) -> Part | None:
    """The reader of a file, None for an unknown ending."""
    if name.endswith(".parquet"):
        return ParquetRows(store, name, size)
    if name.endswith(TEXT_ENDINGS) and sample_by == "document":
        return Document(store, name)
    return Lines(store, name) if name.endswith(LINE_ENDINGS) else None


def find_files(path: str, key: str = "source.path") -> list[tuple[Store, str, int]]:
    """(store, name, size in bytes) of the files of a file, folder, glob or s3:// address, in the order of names.

    Raises UserError, with `key` as the name of the setting, when there is no file.
    """
    if not path.startswith("s3://"):
        local = os.path.expanduser(path.removeprefix("file://"))
        if os.path.isdir(local):
            store = open_store(local)
            return [(store, e.name, e.size) for e in store.list()]
        matches = sorted(m for m in glob.glob(local, recursive=True) if os.path.isfile(m))
        if not matches:
            raise UserError(f"{key} {path}: no such file or folder")
        return [(open_store(os.path.dirname(m) or "."), os.path.basename(m), os.path.getsize(m)) for m in matches]
    store = open_store(path)
    objects = [(store, e.name, e.size) for e in store.list() if e.name]
    if objects:
        return objects
    root, name = split(path)
    parent = open_store(root)
    objects = [(parent, e.name, e.size) for e in parent.list(name) if e.name == name]
    if not objects:
        raise UserError(f"{key} {path}: no such object or prefix")
    return objects
