"""The index of corpora that a run must not repeat: their band keys, sorted, in files that processes of a node share.

It is frozen before the run starts. So workers look rows up in it, and an answer depends on the row alone, not on lots
that were committed before.

Band keys are computed a piece of a corpus at a time (stages/dedup/corpora.py). A piece's keys are a file under its mark
and the settings of the signatures, in the cache of the node and, where nodes share none, in `index/` of the output: a
run that was interrupted goes on with the next piece, and other runs take what is there. The index of a node is made of
these files, once for a list of corpora.

Disk: 8 bytes and the number of the row (4) for each distinct key, and the id of the row: 9 x 12 + 40 bytes a row at 9
bands. A look-up reads about three pages a band. Memory: none but the system's page cache. Making the index takes some
500 MB up to 270 million rows, because keys are sorted in ranges (docs/scale.md).
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.engines.models import made_once
from gristmill.records.cache import cache_folder
from gristmill.records.ids import fingerprint
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.corpora import Corpus, Piece, open_corpora

FORMAT = 1
FOLDER = "index"  # of the output
RANGE_KEYS, MAX_RANGES = 1 << 24, 16  # keys that are sorted at a time, unless a band has more than so many ranges
NONE = np.iinfo(np.int64).max
KeysOf = Callable[[pa.Table], np.ndarray]  # keys uint64 (n, bands) of rows with a text or a stored signature


class Existing:
    """The corpora of a stage, and their index. It can be pickled, and is then closed.

    signing: the literals that decide a signature; keying: those that decide its keys. keys_of: computes keys.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        column: str,
        signing: Mapping[str, Any],
        keying: Any,
        bands: int,
        keys_of: KeysOf,
    ) -> None:
        self.column, self.bands, self._keys_of = column, bands, keys_of
        self._settings = [FORMAT, dict(signing), keying]
        self.corpora: list[Corpus] = open_corpora(addresses, signing)
        self.shared: Store | None = None  # where nodes share the keys of pieces
        self.is_sharing = True  # whether keys are put there too
        self._index: Index | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    @property
    def identity(self) -> list[dict[str, str]]:
        """What the corpora are, wherever they lie."""
        return [{"name": corpus.name, "content": corpus.digest} for corpus in self.corpora]

    @property
    def num_rows(self) -> int:
        return sum(corpus.num_rows for corpus in self.corpora)

    @property
    def pieces(self) -> list[tuple[int, Piece]]:
        """(number of the corpus, piece) of all corpora, in order."""
        return [(number, piece) for number, corpus in enumerate(self.corpora) for piece in corpus.pieces]

    @property
    def missing(self) -> list[tuple[int, Piece]]:
        """The pieces whose keys are in no cache that is within reach."""
        shared = {entry.name for entry in self.shared.list(f"{FOLDER}/keys-")} if self.shared else set()
        return [
            (number, piece)
            for number, piece in self.pieces
            if f"{FOLDER}/{self._file(piece)}" not in shared
            and ((self.shared and self.is_sharing) or not _cache().exists(self._file(piece)))
        ]

    def sign(self, piece: tuple[int, Piece]) -> int:
        """Put the keys of a piece into the caches; returns its rows."""
        self._keys(*piece)
        return piece[1].stop - piece[1].start

    def _file(self, piece: Piece) -> str:
        return f"keys-{fingerprint([self._settings, piece.mark])}.arrow"

    def _keys(self, number: int, piece: Piece) -> None:
        """Have the keys of a piece in the cache of the node, and in the shared store if they are put there."""
        name, cache = self._file(piece), _cache()
        shared = f"{FOLDER}/{name}"
        data = cache.read_if_there(name)
        if data is None and self.shared is not None and (data := self.shared.read_if_there(shared)) is not None:
            cache.put(name, data)
            return
        if data is None:
            data = self._signed(self.corpora[number].read(piece, self.column))
            cache.put(name, data)
        if self.shared is not None and self.is_sharing and not self.shared.exists(shared):
            self.shared.put(shared, data)

    def _signed(self, tables: Iterable[pa.Table]) -> bytes:
        """A file of Arrow: the id and the keys of each row that has a text."""
        ids, parts = [pa.chunked_array([], pa.string())], [np.zeros((0, self.bands), np.uint64)]
        for rows in map(_with_text, tables):
            ids.append(rows.column("id").cast(pa.string()))
            parts.append(self._keys_of(rows))
        keys = np.concatenate(parts)
        columns = {str(band): pa.array(np.ascontiguousarray(keys[:, band])) for band in range(self.bands)}
        whole = pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.string())
        batch = pa.record_batch({"id": whole.combine_chunks(), **columns})
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, batch.schema) as file:
            file.write_batch(batch)
        return sink.getvalue()

    @property
    def index(self) -> "Index":
        """The open index; the first process of a node that needs it makes it."""
        if self._index is None:
            files = [[number, self._file(piece)] for number, piece in self.pieces]
            name = f"existing-{fingerprint([FORMAT, files])}"
            self._index = Index(Path(made_once(name, self._make)))
        return self._index

    def make(self, _: Any = None) -> int:
        """Make the index of this node, also as a task; returns its rows."""
        return self.index.num_rows

    def _make(self, folder: Path) -> None:
        batches = []
        for number, piece in self.pieces:
            self._keys(number, piece)
            batches.append(_batch(Path(_cache().uri) / self._file(piece)))
        write_index(folder, batches, self.bands, [number for number, _ in self.pieces])

    def close(self) -> None:
        self._index = None

    def matches(self, keys: np.ndarray) -> tuple[pa.Array, pa.Array]:
        """(name of the corpus, id of the row) of the first row that shares a key with each row: two string arrays (n,).

        Null where there is none. `keys` is uint64 (n, bands).
        """
        rows = self.index.query(keys)
        sources: list[str | None] = [None] * len(rows)
        ids: list[str | None] = [None] * len(rows)
        for at in np.flatnonzero(rows != NOBODY).tolist():
            number, ids[at] = self.index.row(int(rows[at]))
            sources[at] = self.corpora[number].name
        return pa.array(sources, pa.string()), pa.array(ids, pa.string())

    def keys_again(self, rows: Sequence[int], max_pieces: int) -> dict[int, np.ndarray]:
        """Keys uint64 (bands,) by row, computed anew from the corpora, of those rows that lie in the first pieces."""
        by_piece: dict[int, list[int]] = {}
        for row in rows:
            by_piece.setdefault(self.index.piece(row), []).append(row)
        keys: dict[int, np.ndarray] = {}
        for number in sorted(by_piece)[:max_pieces]:
            corpus, piece = self.pieces[number]
            start = self.index.start(number)
            for texts in map(_with_text, self.corpora[corpus].read(piece, self.column)):
                here = [row for row in by_piece[number] if start <= row < start + texts.num_rows]
                if here:
                    keys |= dict(zip(here, self._keys_of(texts.take([row - start for row in here]))))
                start += texts.num_rows
        return keys


def _with_text(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_valid(rows.column(1)))


def _cache() -> LocalStore:
    return LocalStore(str(cache_folder() / "existing"))


def _batch(path: Path) -> pa.RecordBatch:
    """The only batch of a file of Arrow, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def write_index(folder: Path, batches: Sequence[pa.RecordBatch], num_bands: int, corpora: Sequence[int]) -> None:
    """Write the index of rows whose ids and keys are in `batches`; `corpora` has the number of the corpus of each.

    Of rows that share a key, the first is kept. Keys are uniform, so ranges of them are of about one size.
    """
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    num_rows = int(starts[-1])
    number_type = "<u4" if num_rows < 1 << 32 else "<u8"
    num_ranges = min(MAX_RANGES, max(1, -(-num_rows // RANGE_KEYS)))  # each is picked from all keys of the band
    borders = [(part << 64) // num_ranges for part in range(1, num_ranges)]
    for band in range(num_bands):
        columns = [batch.column(1 + band).to_numpy() for batch in batches]
        with open(folder / f"keys-{band}", "wb") as key_file, open(folder / f"rows-{band}", "wb") as row_file:
            for low, high in zip([0, *borders], [*borders, 1 << 64]):
                parts = [np.flatnonzero((c >= np.uint64(low)) & (c <= np.uint64(high - 1))) for c in columns]
                rows = np.concatenate([p + start for p, start in zip(parts, starts)] or [starts[:0]])
                keys = np.concatenate([c[p] for c, p in zip(columns, parts)] or [np.zeros(0, np.uint64)])
                order = np.argsort(keys, kind="stable")
                keys, rows = keys[order], rows[order]
                is_first = np.ones(len(keys), bool)
                is_first[1:] = keys[1:] != keys[:-1]
                keys[is_first].astype("<u8").tofile(key_file)
                rows[is_first].astype(number_type).tofile(row_file)
    ids = pa.schema([("id", pa.string())])
    with pa.ipc.new_file(str(folder / "ids"), ids) as file:
        for batch in batches:
            file.write_batch(batch.select(["id"]))
    facts = {"bands": num_bands, "number_type": number_type, "starts": starts.tolist(), "corpora": list(corpora)}
    (folder / "facts.json").write_text(json.dumps(facts))


class Index:
    """An index that `write_index` has written, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "facts.json").read_text())
        self._starts, self._corpora = np.array(facts["starts"]), facts["corpora"]
        self.num_rows = int(self._starts[-1])
        kinds = (("keys", "<u8"), ("rows", facts["number_type"]))
        self._bands = [
            tuple(_mapped(folder / f"{name}-{band}", kind) for name, kind in kinds) for band in range(facts["bands"])
        ]
        self._folder = folder

    @cached_property
    def _ids(self) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(self._folder / "ids")))

    def query(self, keys: np.ndarray) -> np.ndarray:
        """The first row that shares a key with each row, -1 if there is none: int64 (n,)."""
        best = np.full(len(keys), NONE)
        for band, (known, rows) in enumerate(self._bands):
            order = np.argsort(keys[:, band])  # neighbours of a look-up lie on the same page
            wanted = keys[order, band]
            at = np.searchsorted(known, wanted)
            inside = np.flatnonzero(at < len(known))
            hits = inside[known[at[inside]] == wanted[inside]]
            best[order[hits]] = np.minimum(best[order[hits]], rows[at[hits]].astype(np.int64))
        return np.where(best < NONE, best, NOBODY)

    def piece(self, row: int) -> int:
        """The number of the piece that holds a row."""
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def start(self, piece: int) -> int:
        """The first row of a piece."""
        return int(self._starts[piece])

    def row(self, row: int) -> tuple[int, str]:
        """(number of the corpus, id) of a row."""
        piece = self.piece(row)
        ids = self._ids.get_batch(piece).column(0)
        return int(self._corpora[piece]), str(ids[row - self.start(piece)].as_py())


def _mapped(path: Path, kind: str) -> np.ndarray:
    """The numbers in a file, read when they are looked at."""
    if not path.stat().st_size:
        return np.zeros(0, kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r"))
