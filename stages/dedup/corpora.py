"""Corpora that a run must not repeat: outputs of earlier runs, releases, and any files that a source reads.

A corpus is cut into pieces of about PIECE_ROWS rows. A piece has a mark, which covers its content, so work on it can be
kept and used again. Rows are numbered over all pieces of a corpus.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.records.cache import cache_folder
from gristmill.records.errors import UserError, without_keys
from gristmill.records.ids import fingerprint
from gristmill.records.masking.masks import masked_text
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output import manifest
from gristmill.records.output.ledger import committed
from gristmill.records.output.listing import listed_entries
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, kept_lot
from gristmill.records.output.shard_reading import meta_of
from gristmill.records.pins import Pin
from gristmill.records.readers.outputs import is_release
from gristmill.records.readers.parquet import columns_of, open_parquet, read_metadata
from gristmill.records.readers.sources import Source, SourceSpec, open_source
from gristmill.records.schema import clean
from gristmill.records.spec import nearest
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.digest import digest_ends
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store

PIECE_ROWS = 1 << 16
READ_ROWS = 1 << 12  # texts of files in memory
NUM_PEEKED = 64  # rows of files that are read to learn whether there is a text
FORMAT = 1  # of the facts of shards in the cache
WHAT = "corpus"  # in messages
MARKS = ("*", "?", "[")  # of a glob
RELEASE = "train-"  # how names of the shards of a release begin


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of a corpus. `mark` covers their content."""

    mark: str
    start: int
    stop: int


class Corpus(ABC):
    """One entry of `against`."""

    address: str
    name: str = ""  # in `existing_source`; see `names_of`
    digest: str  # of the content
    pieces: Sequence[Piece]

    @property
    def num_rows(self) -> int:
        return self.pieces[-1].stop if self.pieces else 0

    @abstractmethod
    def read(self, piece: Piece, column: str) -> Iterator[pa.Table]:
        """The rows of a piece, some at a time: `id` and `column`, both text; or `id` and `minhash`, where it is stored.

        Rows without a text are null. Raises UserError when a file cannot be read or has changed.
        """

    @abstractmethod
    def check(self, column: str) -> None:
        """Raise UserError when the rows have no text in `column`."""


class Shards(Corpus):
    """The kept rows of a run, or the rows of a release: sealed Parquet files with a column `id`."""

    def __init__(self, address: str, store: Store, entries: Sequence[Entry], has_signatures: bool) -> None:
        """`has_signatures`: whether the column `minhash` holds the signatures that the run needs."""
        self.address, self.store, self.has_signatures = address, store, has_signatures
        self._names, self._versions = [e.name for e in entries], [e.version for e in entries]
        facts = _facts(store, entries)
        self.digest = fingerprint([digest for _, digest in facts])
        self._places: list[tuple[int, int, int]] = []  # of each piece: (first shard, shards, row group or -1 for all)
        self.pieces = list(self._cut(facts))

    def _cut(self, facts: Sequence[tuple[Sequence[int], str]]) -> Iterator[Piece]:
        """Small shards are joined to a piece, and those that are larger than a piece are cut at their row groups."""
        start, first, marks, num_rows = 0, 0, list[str](), 0
        for number, (groups, digest) in enumerate(facts):
            is_large = sum(groups) > PIECE_ROWS and len(groups) > 1
            if marks and (is_large or num_rows + sum(groups) > PIECE_ROWS):
                self._places.append((first, number - first, -1))
                yield Piece(fingerprint(marks), start, start + num_rows)
                start, marks, num_rows = start + num_rows, [], 0
            if is_large:
                for group, size in enumerate(groups):
                    self._places.append((number, 1, group))
                    yield Piece(fingerprint([digest, group]), start, start + size)
                    start += size
                continue
            if not marks:
                first = number
            marks.append(digest)
            num_rows += sum(groups)
        if marks:
            self._places.append((first, len(facts) - first, -1))
            yield Piece(fingerprint(marks), start, start + num_rows)

    def read(self, piece: Piece, column: str) -> Iterator[pa.Table]:
        first, num_shards, group = self._places[self.pieces.index(piece)]
        names = ["id", "minhash" if self.has_signatures else column]
        shards = range(first, first + num_shards)
        return read_ahead(self.store, lambda shard: self._read(shard, group, names), shards)

    def _read(self, shard: int, group: int, names: Sequence[str]) -> pa.Table:
        where = self.store.path(self._names[shard])
        pin = Pin(self.store, self._names[shard], self._versions[shard], what=WHAT)
        with pin.open() as source, open_parquet(source, where=where) as file:
            if group < 0:
                return columns_of(file, names, where=where).select(names)
            return file.read_row_group(group, columns=list(names), use_threads=False).select(names)

    def check(self, column: str) -> None:
        where = self.store.path(self._names[0])
        with self.store.open(self._names[0]) as source, open_parquet(source, where=where) as file:
            schema = file.schema_arrow
        texts = [f.name for f in schema if pa.types.is_string(f.type)]
        if column not in texts:
            raise UserError(f"against {self.address}: its rows have no text column '{column}'{nearest(column, texts)}")
        if "id" not in schema.names:
            raise UserError(f"against {self.address}: its rows have no column 'id'; pack it in another format")


class Files(Corpus):
    """The rows of files, as a source reads them; the id of a row is its file and position."""

    def __init__(self, address: str) -> None:
        self.address = address
        with without_keys():
            self.source: Source = open_source(SourceSpec(path=address))
        way, content = self.source.content()  # of every byte of Parquet too
        # Ids hold the names of the parts.
        names = [part.name for part in self.source.parts]
        self.digest = fingerprint([self.source.digest() if way == "versions" else content, names])
        num_rows = self.source.num_rows
        bounds = [(start, min(start + PIECE_ROWS, num_rows)) for start in range(0, num_rows, PIECE_ROWS)]
        self.pieces = [Piece(fingerprint([self.digest, start, stop]), start, stop) for start, stop in bounds]

    def read(self, piece: Piece, column: str) -> Iterator[pa.Table]:
        self.source.select([column])
        for start in range(piece.start, piece.stop, READ_ROWS):
            with without_keys():
                rows = self.source.rows(start, min(start + READ_ROWS, piece.stop))
            ids, texts = [clean(i) for i, _ in rows], [_field(line, column) for _, line in rows]
            yield pa.table({"id": pa.array(ids, pa.string()), column: pa.array(texts, pa.string())})

    def check(self, column: str) -> None:
        self.source.select([column])
        with without_keys():
            rows = self.source.rows(0, min(NUM_PEEKED, self.num_rows))
        if all(_field(line, column) is None for _, line in rows):
            raise UserError(f"against {self.address}: none of its first {len(rows)} rows has a text in '{column}'")


def _field(line: str, column: str) -> str | None:
    """The text of a field of a row; None where it has none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    value = row.get(column) if isinstance(row, dict) else None
    return clean(value) if isinstance(value, str) else None


def open_corpora(addresses: Sequence[str], signing: Mapping[str, Any]) -> list[Corpus]:
    """The corpora, found, counted and digested. `signing`: the settings that decide a stored signature.

    Raises UserError for a corpus that is missing, empty or still growing.
    """
    corpora = [_open(address, signing) for address in addresses]
    for corpus, name in zip(corpora, names_of(addresses)):
        corpus.name = name
    return corpora


def names_of(addresses: Sequence[str]) -> list[str]:
    """Names for `existing_source`: the last part of each address, or as many parts as tell all of them apart.

    A name does not tell where a corpus lies, so one that is moved keeps its name.
    """
    parts = [[part for part in address.partition("://")[2 if "://" in address else 0].split("/") if part]
             for address in addresses]  # fmt: skip
    for depth in range(1, max(len(p) for p in parts) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            break
    return [masked_text(name) for name in names]


def _open(address: str, signing: Mapping[str, Any]) -> Corpus:
    if address.startswith("package:") or any(mark in address for mark in MARKS):
        return Files(address)
    store = open_store(address)
    if isinstance(store, LocalStore) and not store.root.is_dir():
        return Files(address)
    try:
        run = manifest.load(store)
    except UserError:
        run = None  # another program's manifest.json
    if run is not None:
        return _open_run(address, store, run, signing)
    releases = [entry for entry in store.list(RELEASE) if entry.name.endswith(".parquet")]
    if releases and is_release(store):
        return Shards(address, store, releases, False)
    return Files(address)


def _open_run(address: str, store: Store, run: Manifest, signing: Mapping[str, Any]) -> Corpus:
    if run.state == "running":
        raise UserError(f"against {address}: the run is still going on (or was killed); run its command to the end")
    num_lots = len(committed(store, run))
    entries = listed_entries(store, KEPT, num_lots)
    shards = [e for e in entries if (lot := kept_lot(e.name)) is not None and lot < num_lots]
    if not run.totals.kept:
        raise UserError(f"against {address}: the run kept no row; leave it out")
    return Shards(address, store, shards, any(_signed_alike(s, signing) for s in run.identity.get("stages", ())))


def _signed_alike(stage: Any, signing: Mapping[str, Any]) -> bool:
    return isinstance(stage, dict) and all(stage.get(key) == value for key, value in signing.items())


def _facts(store: Store, entries: Sequence[Entry]) -> list[tuple[list[int], str]]:
    """(rows of each row group, digest of the content) of each shard, from their footers.

    The digest is the one in the footer of a kept shard; of a release it covers the size and both ends. Footers are read
    once per node for the same listing.
    """
    listing = [store.uri, FORMAT, [[e.name, e.version] for e in entries]]
    cache, name = LocalStore(str(cache_folder() / "existing")), f"shards-{fingerprint(listing)}.json"
    if (data := cache.read_if_there(name)) is not None:
        return [(groups, digest) for groups, digest in json.loads(data)]
    facts = list(read_ahead(store, lambda entry: _fact(store, entry), entries))
    cache.put(name, json.dumps(facts).encode())
    return facts


def _fact(store: Store, entry: Entry) -> tuple[list[int], str]:
    with store.open(entry.name, entry.version) as file:
        digest = "" if kept_lot(entry.name) is not None else digest_ends(file, entry.size)
        file.seek(0)
        metadata = read_metadata(file, where=store.path(entry.name))
    if (lot := kept_lot(entry.name)) is not None:
        digest = str(meta_of(metadata, store, lot)["data_sha256"])
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)], digest
