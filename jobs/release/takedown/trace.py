"""Which rows of a run or a release a take-down leaves out: those on the list, and all rows made from them.

Columns state what a row was made from: `source_id` (the row of the source, or in rounds of evolution the row before
it), `other_source_id` (the second document of a pair) and `example_ids` (the rows that an ask showed as examples). A
row is made from rows of its own run that were kept before it, so one pass in the order of lots finds all. Where the
source of a run is a run or a release, that one is traced first, and its rows are known to the later run by their ids or
by their places in its files.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.cluster.reading import is_on_cluster, ordered_reads
from gristmill.jobs.release.takedown.listing import KINDS, Keys, Kind, Listing, key
from gristmill.jobs.release.takedown.upstream import (
    check_id_column,
    files_of,
    missing_upstream,
    source_path,
    upstream_of,
)
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import open_console
from gristmill.records.errors import UserError
from gristmill.records.output import manifest
from gristmill.records.output.ledger import committed
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.readers.parquet import columns_of, open_parquet
from gristmill.records.readers.upstreams import is_shard_name
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.digest import digest_all

logger = logging.getLogger(__name__)

SHARDS_PER_TASK, MIN_SHARDS, MIN_SHARDS_LOCAL = 64, 500, 4000  # see jobs/audit/run.py
PLAIN_EVERY_S = 10.0
EXAMPLES, OTHER = "example_ids", "other_source_id"
SHARD_PLACE = re.compile(r"(?:.*/)?(?:part-\d{8,}|train-\d{5,}-of-\d{5,})\.parquet:\d+")
EXAMPLE_METHODS = ("self_instruct",)  # methods whose rows are made from examples when they go in rounds


@dataclass(frozen=True)
class ShardIds:
    """Keys of the rows of a shard: of their ids, of their source ids, and of the other rows that each was made from."""

    name: str
    ids: list[bytes]
    sources: list[bytes]
    in_files: list[bool]  # whether a source id names a row of a file on the list
    examples: list[list[bytes]]  # and the other document
    names_shards: bool  # whether a source id is the place of a row in a shard
    states_examples: bool


@dataclass(frozen=True)
class IdReader:
    """Reads the columns that say what rows were made from. It can be pickled."""

    store: Store
    files: tuple[str, ...] = ()  # how source ids of rows of files on the list begin

    def shards(self, names: Sequence[str]) -> list[ShardIds]:
        return [self._shard(name) for name in names]

    def _shard(self, name: str) -> ShardIds:
        where = self.store.path(name)
        with self.store.open(name) as source, open_parquet(source, where=where) as file:
            present = [n for n in ("id", "source_id", OTHER, EXAMPLES) if n in file.schema_arrow.names]
            rows = columns_of(file, present, where=where).to_pydict()
        ids = rows.get("id")
        if ids is None:
            raise UserError(f"{where}: it has no column 'id', so a take-down cannot find its rows")
        sources = rows.get("source_id") or [None] * len(ids)
        others = rows.get(OTHER) or [None] * len(ids)
        shown = rows.get(EXAMPLES) or [None] * len(ids)
        examples = [[key(e) for e in (*(more or ()), other) if e is not None] for more, other in zip(shown, others)]
        in_files = [self._is_in_file(source) or self._is_in_file(other) for source, other in zip(sources, others)]
        keys = [key(i) for i in ids], [key(s) if s is not None else b"" for s in sources]
        names_shards = any(source is not None and SHARD_PLACE.fullmatch(source) for source in (*sources, *others))
        return ShardIds(name, *keys, in_files, examples, names_shards, EXAMPLES in rows)

    def _is_in_file(self, source: str | None) -> bool:
        return bool(self.files) and source is not None and source.startswith(self.files)


@dataclass
class Takedown:
    """A list, and what it has matched so far. `Traced` tells the rows of each output."""

    listing: Listing
    matched: dict[Kind, set[int]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    num_rows: Counter[str] = field(default_factory=Counter)  # left out of the release: "listed", "derived"
    hidden: set[bytes] = field(default_factory=set)  # keys that no row of the release may bear as id or source
    traced: dict[str, "Traced"] = field(default_factory=dict)  # by address

    def __post_init__(self) -> None:
        self._keys, self._files = {kind: self.listing.keys(kind) for kind in KINDS}, self.listing.files
        self.hidden |= {*self._keys["id"], *self._keys["source_id"]}

    def match_files(self, store: Store, files: Sequence[Entry]) -> list[str]:
        """Names of the files whose SHA-256 is on the list. Reads all files, once per node, if the list has any."""
        if not self._files:
            return []
        digests = digest_all(store, files, f"source {store.uri}")
        names = [name for name, digest in digests.items() if digest in self._files]
        self.matched["source_digest"] |= {self._files[digests[name]] for name in names}
        return names

    def match(self, kind: Kind, value: bytes) -> bool:
        """Whether the key is on the list; notes the match."""
        at = self._keys[kind].get(value)
        if at is not None:
            self.matched[kind].add(at)
        return at is not None

    def keys(self, kind: Kind) -> Keys:
        """The entries that may be of this kind."""
        return Keys(self._keys[kind])

    def leave_out(self, traced: "Traced") -> None:
        """Count the rows of an output as left out of the release."""
        self.num_rows["listed"] += len(traced.listed)
        self.num_rows["derived"] += len(traced.rows) - len(traced.listed)

    @property
    def unmatched(self) -> list[str]:
        """The entries that have matched nothing."""
        matched = set().union(*self.matched.values())
        return [value for at, (value, _) in enumerate(self.listing.entries) if at not in matched]

    def trace(self, store: Store) -> "Traced":
        """The rows of a run or a release at `store`, with those of what it was made from."""
        if store.uri not in self.traced:
            self.traced[store.uri] = Traced(set(), set())  # a run that names itself as its source ends here
            self.traced[store.uri] = _trace(self, store)
            self.hidden |= self.traced[store.uri].rows
        return self.traced[store.uri]


@dataclass(frozen=True)
class Traced:
    """Rows of an output that are left out: the keys of their ids, those that are on the list by themselves, and their
    numbers by the file (without its folder), by which a later run may know them."""

    rows: set[bytes]
    listed: set[bytes]
    places: dict[str, list[int]] = field(default_factory=dict)

    @property
    def keys(self) -> Keys:
        return Keys(self.rows)

    def sources(self, folders: Sequence[str]) -> set[bytes]:
        """The keys of these rows as source ids of a later run; `folders`: how it names the folder of the files."""
        places = [f"{name}:{row}" for name, rows in self.places.items() for row in rows]
        return self.rows.union(key(folder + place) for folder in folders for place in places)


def _trace(takedown: Takedown, store: Store) -> Traced:
    run = manifest.load(store)
    if run is None:
        names = [e.name for e in store.list("train-") if e.name.endswith(".parquet")]
        return _walk(takedown, store, names, set(), False, None, ())
    parents, outputs = set[bytes](), upstream_of(run, store)
    for upstream, folders in outputs.stores:
        traced = takedown.trace(upstream)
        if traced.rows:
            check_id_column(run, store, upstream)
        parents |= traced.sources(folders)
    names = [shard_name(KEPT, lot) for lot in range(len(committed(store, run)))]
    is_whole = any([takedown.match("source_digest", key(digest)) for digest in digests_of(run)])
    files = _listed_files(takedown, run, store, has_upstreams=bool(outputs.stores))
    starts = tuple(f"{name}:" for name in files)
    return _walk(takedown, store, names, parents, is_whole, run, starts, outputs.are_certain)


def _listed_files(takedown: Takedown, run: Manifest, store: Store, has_upstreams: bool) -> list[str]:
    """Names of the files of a run's source, but for the shards of its upstreams, that are on the list by their SHA-256.

    Raises UserError where that cannot be told.
    """
    source = run.recipe.get("source") or {}
    path = source_path(run)
    is_step = (run.inputs.get("source") or {}).get("way") == "step"
    if not takedown.listing.files or not path or is_step:
        return []
    by_store: dict[str, tuple[Store, list[Entry]]] = {}
    files = files_of(path)
    if files is None:
        raise UserError(
            f"{store.uri}: the files of its source, {path}, are not there, so those on the list by their SHA-256 "
            "cannot be told; put them back, pack in the folder where the run was made, or list source ids instead"
        )
    for file in (file for file in files if not (has_upstreams and is_shard_name(file.name))):
        by_store.setdefault(file.store.uri, (file.store, []))[1].append(file.entry)
    names = [name for place, entries in by_store.values() for name in takedown.match_files(place, entries)]
    if names and source.get("id_column"):
        raise UserError(
            f"{store.uri}: its source ids are the column '{source['id_column']}', which does not say which rows are of "
            f"the file {names[0]}; list these source ids"
        )
    return names


def _walk(
    takedown: Takedown,
    store: Store,
    names: Sequence[str],
    parents: set[bytes],
    is_whole: bool,
    run: Manifest | None,
    files: tuple[str, ...],
    has_all_upstreams: bool = True,
) -> Traced:
    traced = Traced(set(), set())
    use_tasks = len(names) >= (MIN_SHARDS if is_on_cluster() else MIN_SHARDS_LOCAL)
    tasks = [names[at : at + SHARDS_PER_TASK] for at in range(0, len(names), SHARDS_PER_TASK)]
    made_from = set(parents)
    lacks_examples, names_shards, reader = False, False, IdReader(store, files)
    with Bar(open_console(is_error=True), "take-down", PLAIN_EVERY_S) as bar:
        for number, shard in enumerate(ordered_reads(store, reader.shards, tasks, use_tasks), 1):
            lacks_examples |= not shard.states_examples
            names_shards |= shard.names_shards
            if run and shard.names_shards and not has_all_upstreams:
                raise missing_upstream(run, store)
            columns = zip(shard.ids, shard.sources, shard.in_files, shard.examples)
            for row, (row_id, source, is_in_file, examples) in enumerate(columns):
                is_listed = is_whole | is_in_file | takedown.match("id", row_id) | takedown.match("source_id", source)
                shown = [takedown.match("id", e) | takedown.match("source_id", e) | (e in made_from) for e in examples]
                if is_listed or source in made_from or any(shown):
                    traced.rows.add(row_id)
                    made_from.add(row_id)
                    traced.places.setdefault(shard.name.rpartition("/")[2], []).append(row)
                    if is_listed:
                        traced.listed.add(row_id)
            bar.show(number, len(names), f"{number:,} of {len(names):,} shards searched for rows to leave out")
    if run is None and names_shards:
        logger.warning(
            f"{store.uri}: this release has rows that were made from the rows of a run, which they name by file and "
            "number; those made from rows on the list are not found here: pack or mix the run instead of its release"
        )
    if run and traced.rows and lacks_examples and run.recipe.get("rounds") and _shows_examples(run.recipe):
        raise UserError(
            f"{store.uri}: its rows do not state the examples that they were made from (it was made before 0.4), so "
            "rows made from those on the list cannot be found; make the run again"
        )
    return traced


def _shows_examples(recipe: Mapping[str, Any]) -> bool:
    return (recipe.get("method") or {}).get("kind") in EXAMPLE_METHODS


def digests_of(run: Manifest) -> set[str]:
    """What a list may call the source of a run: its digest, that of all its bytes, and the fingerprint of the run."""
    stated = (run.identity.get("source") or {}).get("content"), (run.inputs.get("source") or {}).get("content")
    return {str(digest) for digest in (*stated, run.fingerprint) if digest}
