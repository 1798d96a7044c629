"""Sources of asks: inline items, data files of all formats (docs/sources.md), data sets in packages, and functions.

A source is a numbered list of rows that can be read from any row on, so that a resumed run starts in the middle.
Its memory grows with files and blocks of lines, never with rows.
"""

import json
import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from gristmill.records.errors import UserError
from gristmill.records.functions.contract import AskRows, FunctionRows
from gristmill.records.functions.registry import row_function
from gristmill.records.ids import fingerprint
from gristmill.records.licenses import license_id
from gristmill.records.ordered_map import LOCAL_THREADS, NUM_THREADS, ordered_map
from gristmill.records.pins import Pin
from gristmill.records.readers.datasets import PACKAGE, PACKAGED
from gristmill.records.readers.formats import ReadOptions, check_options
from gristmill.records.readers.outputs import RUN
from gristmill.records.readers.parts import WHAT, Items, PackedRows, ParquetRows, Part, part_of
from gristmill.records.readers.places import DataFile, find_files
from gristmill.records.readers.row_changes import RowChanges
from gristmill.records.schema import RESERVED
from gristmill.records.spec import LATER, keys_of_kind, later, nearest
from gristmill.records.stores.contract import Entry
from gristmill.records.stores.digest import digest_all

MAX_DIGEST_BYTES = 100 << 30  # the Parquet files of a larger source are told apart by their versions alone


@dataclass(frozen=True)
class SourceSpec:
    """`[source]` of a recipe: `items`, `path` or `kind`."""

    items: tuple[Any, ...] = ()  # tables, or strings, which become {"text": ...}
    # a file, a folder or a glob, local or in a bucket, the output of a run, or a release; or package:help-topics, ...
    path: str | None = None
    sample_by: Literal["line", "document"] = "line"  # how text files are split, as in `datasets`
    id_column: str | None = None  # column of `source_id`; default: file and row number
    carry: tuple[str, ...] = ()  # columns copied to the output as payload
    samples: int = 1  # asks per source row
    together: bool = False  # whether the samples of a row follow one another: the engine reads their common text once
    cycle: bool = False  # repeat the rows until a limit is reached; needs a limit
    # Licence of the rows, an id of SPDX or of the Hub, for the card of a release; never changes a row.
    license: str | None = later(None)
    # renamed columns: name in the rows = name in the files
    columns: dict[str, str] | None = field(default=None, metadata={LATER: True})
    encoding: str | None = later(None)  # of text files without a byte-order mark; default: UTF-8
    delimiter: str | None = later(None)  # of CSV files; default: told from their first lines
    # "tasks", "personas" or a plug-in: rows that are computed by number; its keys stand beside it.
    kind: str | None = later(None)
    num_rows: int | None = later(None)  # rows of `kind`; default: without end, so that [limits] end the run
    seed: int | None = later(None)  # of the rows of `kind`; default: the seed of the recipe
    keys: dict[str, Any] | None = keys_of_kind()  # those of the class that `kind` names

    def __post_init__(self) -> None:
        check_options(self.encoding, self.delimiter)
        if self.license is not None:
            license_id(self.license)
        if sum(map(bool, (self.items, self.path, self.kind))) != 1:
            raise ValueError("set one of 'items', 'path' and 'kind'")
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if self.cycle and self.samples != 1:
            raise ValueError("samples has no effect with cycle = true, which repeats the rows until a limit is reached")
        if self.together and self.samples == 1:
            raise ValueError("together has no effect without samples > 1: one ask per row has no company")
        if not self.path and (self.columns or self.encoding or self.delimiter):
            what = "items" if self.items else "kind"
            raise ValueError(f"columns, encoding and delimiter are for the files of path, not for {what}")
        self._check_kind()
        for name in self.carry:
            if name in RESERVED:
                raise ValueError(
                    f"carry: '{name}' is a column that every row of Gristmill has; read it under another name with "
                    f'columns = {{ source_{name} = "{name}" }} and carry that'
                )
        for item in self.items:
            if not isinstance(item, str | dict):
                raise ValueError(f"items must be strings or tables, not {type(item).__name__} {item!r}")

    @property
    def is_endless(self) -> bool:
        """Whether the rows have no end."""
        return self.kind is not None and self.num_rows is None

    def _check_kind(self) -> None:
        if self.kind is None and (self.num_rows is not None or self.seed is not None):
            raise ValueError("num_rows and seed are for the rows of a kind; limits.asks ends a run that reads files")
        if self.num_rows is not None and not 1 <= self.num_rows <= 10**15:
            raise ValueError("num_rows must be at least 1 and at most 10^15; leave it out for rows without end")
        if self.is_endless and self.cycle:
            raise ValueError("cycle needs num_rows: rows without end never begin again")
        if self.is_endless and self.samples > 1 and not self.together:
            raise ValueError("samples needs together = true or num_rows: rows without end never come a second time")


class Source:
    """All parts in order, as a numbered list of rows.

    num_together: asks about one row that follow one another.
    """

    is_ended = True  # whether all rows are there (gristmill.records.committed has sources that still grow)

    def __init__(
        self,
        parts: Sequence[Part],
        id_column: str | None,
        path: str | None = None,
        num_together: int = 1,
        skipped: Mapping[str, int] | None = None,
        is_glob: bool = False,
        has_output_files: bool = False,
    ) -> None:
        self.parts = parts
        self.id_column = id_column
        self.path = path  # of its files
        self.num_together = num_together
        self.skipped = dict(skipped or {})  # number of files that are not read, by reason
        self.is_glob = is_glob
        self.has_output_files = has_output_files  # shards of runs and releases that the path reaches otherwise
        self.starts = np.cumsum([0, *(p.num_rows for p in parts)])
        self.num_rows = int(self.starts[-1])

    def digest(self) -> str:
        """The identity of the content; it does not depend on the location of the files.

        The ids of rows begin with the names of files. Those of a glob have their folders since 0.3, and shards that a
        glob or their own folder reaches lack the columns of Gristmill.
        """
        has_folders = self.is_glob and any("/" in p.name for p in self.parts)
        changes = [*(["folders"] if has_folders else []), *(["shards"] if self.has_output_files else [])]
        return fingerprint([*(p.digest for p in self.parts), *changes])

    @property
    def version(self) -> str:
        """The version of all files: while it is the same, their content is."""
        return fingerprint([p.pin.version if p.pin else p.digest for p in self.parts])

    def content(self) -> tuple[str, str]:
        """(way, digest): the identity of every byte of the content, which `digest` covers but for Parquet.

        The way is "bytes", or "tags" where Parquet files are on S3 and count by their ETags, or "versions" for a source
        of more than 100 GiB of local Parquet. Reads all local Parquet files, once per node.
        """
        by_store: dict[str, list[ParquetRows]] = {}
        for part in self.parts:
            if isinstance(part, ParquetRows):
                by_store.setdefault(part.pin.store.uri, []).append(part)
        parquet = [part for parts in by_store.values() for part in parts]
        way = "tags" if any(p.pin.store.guards_reads for p in parquet) else "bytes"
        if way == "bytes" and sum(p.size for p in parquet) > MAX_DIGEST_BYTES:
            way = "versions"
        if way == "bytes":
            for parts in by_store.values():
                entries = [Entry(p.name, p.size, p.pin.version) for p in parts]
                digests = digest_all(parts[0].pin.store, entries, f"source {self.path}")
                for part in parts:
                    part.pin.digest = digests[part.name]
        return way, fingerprint([p.content for p in self.parts])

    def check(self) -> None:
        """Raise UserError when a file has changed, has gone or has been added since the source was opened."""
        if self.path is None:
            return
        pins = {p.pin.store.path(p.pin.name): p.pin for p in self.parts if p.pin}
        try:
            files = {file.address: file for file in find_files(self.path).files}
        except UserError:  # there is no file at all
            files = {}
        for address, pin in pins.items():
            if address not in files or files[address].entry.version != pin.version:
                pin.check()
        for address, file in files.items():
            if address not in pins:
                raise Pin(file.store, file.name, file.entry.version, what=WHAT).changed("it was not there before")

    def select(self, names: Collection[str]) -> None:
        """Read only these columns of the rows, where that is cheaper."""
        for part in self.parts:
            part.select({*names, *([self.id_column] if self.id_column else [])})

    def rows(self, start: int, stop: int) -> list[tuple[str, str]]:
        """(source_id, JSON text) of rows start..stop-1."""
        rows: list[tuple[str, str]] = []
        while start < stop:
            part, first, part_end = self._place(start)
            part_stop = min(stop, part_end)
            for at, text in enumerate(part.rows(start - first, part_stop - first), start - first):
                rows.append((self._id(part, at, text), text))
            start = part_stop
        return rows

    def _place(self, row: int) -> tuple[Part, int, int]:
        """The part that holds a row, and the range of rows [first, stop) that the part is."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[number], int(self.starts[number]), int(self.starts[number + 1])

    @property
    def words(self) -> str:
        """What the source is, for a plan."""
        return f"{self.num_rows:,} rows in {len(self.parts):,} parts"

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of the rows where they are known without reading any; else None."""
        return None

    @property
    def literals(self) -> dict[str, Any]:
        """What `digest` covers, where it can be shown; else {}."""
        return {}

    def ask_rows(self, start: int, stop: int, num_rows: int) -> Sequence[tuple[str, str]]:
        """(source id, JSON text) of asks [start, stop), which cycle through the first `num_rows` rows.

        Each row is read once, however often the asks cycle.
        """
        if self.num_together > 1:
            first = start // self.num_together
            rows = self.rows(first, (stop - 1) // self.num_together + 1)
            return [rows[at // self.num_together - first] for at in range(start, stop)]
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


class FunctionSource(Source):
    """Rows that are computed by number. Workers compute them: a lot in flight carries the function, not the rows."""

    def __init__(self, part: FunctionRows, id_column: str | None, num_together: int) -> None:
        super().__init__([part], id_column, num_together=num_together)
        self.part = part

    @property
    def words(self) -> str:
        return self.part.words

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(self.part.function.columns)

    @property
    def literals(self) -> dict[str, Any]:
        return self.part.literals

    def ask_rows(self, start: int, stop: int, num_rows: int) -> AskRows:
        part = self.part
        return AskRows(self, fingerprint([part.digest, *part.names]), len(pickle.dumps(part)), (start, stop, num_rows))

    def compute(self, start: int, stop: int, num_rows: int) -> list[tuple[str, str]]:
        """(source id, JSON text) of asks [start, stop), as `ask_rows` of any source."""
        return list(super().ask_rows(start, stop, num_rows))


def open_source(spec: SourceSpec, seed: int = 0) -> Source:
    """Find and number the rows; `seed` is that of computed rows for which the spec states none.

    Raises UserError when a file is missing, unreadable or empty, and for an unknown kind or key.
    """
    num_together = spec.samples if spec.together else 1
    if spec.items:
        return Source([Items(spec.items)], spec.id_column, num_together=num_together)
    if spec.kind is not None:
        source_keys = [each.name for each in fields(SourceSpec) if each.name != "keys"]
        function = row_function(spec.kind, spec.keys or {}, source_keys)
        rows = FunctionRows(function, seed if spec.seed is None else spec.seed, spec.num_rows)
        return FunctionSource(rows, spec.id_column, num_together)
    assert spec.path is not None
    renames = spec.columns or {}
    if (name := spec.path.removeprefix(PACKAGE)) != spec.path:
        if name not in PACKAGED:
            raise UserError(f"source.path: no data set '{spec.path}'{nearest(name, PACKAGED)}")
        return Source([PackedRows(spec.path, RowChanges(renames))], spec.id_column, num_together=num_together)
    options = ReadOptions(spec.encoding, spec.delimiter, spec.sample_by)

    def opened(file: DataFile) -> Part:
        return part_of(file, options, renames)

    try:
        place = find_files(spec.path)
        num_threads = NUM_THREADS if place.files[0].store.is_remote else LOCAL_THREADS
        parts = list(ordered_map(opened, place.files, num_threads))
    except PermissionError as error:
        raise UserError(f"source.path {spec.path}: {error}") from None
    place.log()
    has_output_files = any(
        file.owner and (not place.is_folder or (file.owner == RUN and "/" not in file.name)) for file in place.files
    )
    source = Source(parts, spec.id_column, spec.path, num_together, place.counts, place.is_glob, has_output_files)
    if source.num_rows == 0:
        raise UserError(f"source.path {spec.path}: the source is empty")
    return source
