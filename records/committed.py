"""The kept rows of a run as the source of another run: lot by lot, in lot order, also while the first run goes on.

Committed lots never change, and they are committed in lot order. So a reader that takes them as they come gets the same
rows in the same order as one that waits for the end, and its asks have the same ids, seeds and source ids.
"""

import hashlib
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gristmill.records.errors import InputChanged, UserError
from gristmill.records.ids import fingerprint
from gristmill.records.output.ledger import metas
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import meta_of
from gristmill.records.pins import REMEDY, Pin
from gristmill.records.readers.arrow_values import json_texts
from gristmill.records.readers.parquet import columns_of, open_parquet, read_metadata
from gristmill.records.readers.parts import Part
from gristmill.records.readers.row_changes import RowChanges
from gristmill.records.readers.sources import Source, SourceSpec
from gristmill.records.schema import INNER_COLUMNS
from gristmill.records.stores.contract import Store

WAY = "step"  # how the manifest of the reading run pins such a source
LOOK_S = 0.5  # between two looks for further lots
MAX_SHARDS = 64  # that a look opens
NUM_THREADS = 16


@dataclass(frozen=True)
class Upstream:
    """The run whose kept rows are read.

    extent: what ends it, see `extent_of`. is_repeatable: whether fingerprint and extent decide its rows. columns: of
    its rows.
    """

    step: str
    fingerprint: str
    extent: Mapping[str, Any]
    is_repeatable: bool
    columns: tuple[str, ...]

    @property
    def identity(self) -> str:
        """What its rows are identified by where it is repeatable."""
        return fingerprint({"step": {"fingerprint": self.fingerprint, **self.extent}})


def extent_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What ends a run of a resolved recipe, which its fingerprint does not cover: its limits, and how often it reads
    the rows of its source."""
    source = recipe.get("source") or {}
    limits = {name: limit for name, limit in (recipe.get("limits") or {}).items() if limit is not None}
    return {"limits": limits, "samples": source.get("samples", 1), "cycle": source.get("cycle", False)}


class KeptShard(Part):
    """The kept rows of a committed lot. `digest` is the checksum of the shard, as its footer states it."""

    pin: Pin

    def __init__(self, store: Store, lot: int, changes: RowChanges) -> None:
        """Reads the footer. Raises FileNotFoundError for a lot that is not committed, UserError for a bad shard."""
        self._changes = changes
        self.lot, self.name = lot, shard_name(KEPT, lot).rpartition("/")[2]
        self.pin = Pin(store, shard_name(KEPT, lot), store.version(shard_name(KEPT, lot)), what="source")
        with self.pin.open() as file:
            metadata = read_metadata(file, where=store.path(self.pin.name))
        self.num_rows, self.digest = metadata.num_rows, str(meta_of(metadata, store, lot)["data_sha256"])
        self._texts: list[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_texts": None}

    def rows(self, start: int, stop: int) -> list[str]:
        if self._texts is None:
            where = self.pin.store.path(self.pin.name)
            with self.pin.open() as file, open_parquet(file, where=where) as parquet:
                names = [name for name in parquet.schema_arrow.names if name not in INNER_COLUMNS]
                table = columns_of(parquet, names, where=where)
            self._texts = [self._changes.text(text, where) for text in json_texts(table)]
        texts = self._texts[start:stop]
        if stop == self.num_rows:
            self._texts = None  # the last row was read; otherwise a run of many lots would fill the memory
        return texts


class CommittedRows(Source):
    """The kept rows of `upstream` in `store`.

    by_plan: they are identified by the fingerprint and the limits of their run, which must then be repeatable; else by
    their content, which is known at the end of that run.

    Until the run has ended with its limits, the source grows at each `look`, and `num_rows` are those there so far.
    """

    is_ended: bool
    parts: list[KeptShard]

    def __init__(self, store: Store, upstream: Upstream, spec: SourceSpec, by_plan: bool) -> None:
        self.store, self.upstream, self.by_plan = store, upstream, by_plan
        self.id_column, self.path, self._changes = spec.id_column, None, RowChanges(spec.columns)
        self.num_together = spec.samples if spec.together else 1
        self.parts, self.is_ended = [], False
        self._starts, self._hash = [0], hashlib.blake2b(digest_size=16)
        self._num_lots = self._num_rows = 0  # of the whole run, once it has ended
        self._looked_s = float("-inf")
        self._see_end()

    # Growth

    def look(self) -> None:
        """Take the lots that have been committed since, unless it is too early for a look.

        Raises UserError when a shard or the store cannot be read, and when the run has ended without a kept row.
        """
        now = time.monotonic()
        if self.is_ended or now - self._looked_s < LOOK_S:
            return
        num_before = len(self.parts)
        self._open_next(MAX_SHARDS)
        if len(self.parts) < num_before + MAX_SHARDS:
            self._see_end()
            self._looked_s = now

    def _see_end(self) -> None:
        """Note the size of the run if it has ended with its limits; a stop or an older start is no end."""
        manifest = read_manifest(self.store)
        if manifest is None or manifest.state != "complete" or manifest.fingerprint != self.upstream.fingerprint:
            return
        if extent_of(manifest.recipe) != self.upstream.extent:
            return  # it is of an earlier start, with other limits
        if not manifest.totals.kept:
            raise UserError(f"step '{self.upstream.step}' kept no row, so there is nothing to read from it")
        self._num_lots, self._num_rows, self.is_ended = manifest.totals.num_lots, manifest.totals.kept, True

    def _open_next(self, number: int) -> None:
        """Open up to `number` further shards, those without a gap before them."""
        first = len(self.parts)
        if self.is_ended:
            number = min(number, self._num_lots - first)
        shards: list[KeptShard] = []
        while len(shards) < number:  # one first: most looks find no lot or one
            width = 1 if not shards and not self.is_ended else min(NUM_THREADS, number - len(shards))
            lots = range(first + len(shards), first + len(shards) + width)
            with ThreadPoolExecutor(width) as pool:
                window = list(pool.map(self._open, lots))
            present = window[: window.index(None)] if None in window else window
            shards += [shard for shard in present if shard is not None]
            if len(present) < width:
                break
        for shard in shards:
            self.parts.append(shard)
            self._starts.append(self._starts[-1] + shard.num_rows)
            self._hash.update(bytes.fromhex(shard.digest))

    def _open(self, lot: int) -> KeptShard | None:
        try:
            return KeptShard(self.store, lot, self._changes)
        except FileNotFoundError:
            return None

    def _open_until(self, row: int) -> None:
        """Open the shards of the first `row` rows. Raises InputChanged when one is missing."""
        while self._starts[-1] < row:
            num_before = len(self.parts)
            self._open_next(MAX_SHARDS)
            if len(self.parts) == num_before:
                raise Pin(self.store, shard_name(KEPT, num_before), "", what="source").changed("it is missing")

    # What a Source is

    @property
    def num_rows(self) -> int:  # type: ignore[override]  # of a Source it is fixed
        return self._num_rows if self.is_ended else self._starts[-1]

    @property
    def num_asks(self) -> int:
        """Asks whose rows are there, of a run that reads each row once."""
        return self.num_rows * self.num_together

    @property
    def words(self) -> str:
        step = self.upstream.step
        return f"{self.num_rows:,} kept rows of step '{step}'" if self.is_ended else f"the kept rows of step '{step}'"

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(self._changes.names([n for n in self.upstream.columns if n not in INNER_COLUMNS]))

    def digest(self) -> str:
        """By plan, or of the content; before the content is known, a mark that no output bears."""
        if self.by_plan:
            return self.upstream.identity
        if not self.is_ended:
            return fingerprint(["step", self.upstream.step])
        self._open_until(self._num_rows)
        self._open_next(self._num_lots)  # lots without a kept row at the end
        return self.content_digest

    @property
    def version(self) -> str:
        return fingerprint([part.pin.version for part in self.parts])

    def rows(self, start: int, stop: int) -> list[tuple[str, str]]:
        self._open_until(stop)
        return super().rows(start, stop)

    def ask_rows(self, start: int, stop: int, num_rows: int) -> Sequence[tuple[str, str]]:
        """As of any source; `num_rows` of a plan may be from before the last look."""
        return super().ask_rows(start, stop, self.num_rows)

    def _place(self, row: int) -> tuple[Part, int, int]:
        number = bisect_right(self._starts, row) - 1
        return self.parts[number], self._starts[number], self._starts[number + 1]

    def check(self) -> None:
        """Raise UserError when a shard that was opened has changed or is gone."""
        versions = {entry.name: entry.version for entry in self.store.list(f"{KEPT}/")}
        for part in self.parts:
            if versions.get(part.pin.name) != part.pin.version:
                part.pin.check()

    # Pins

    @property
    def content_digest(self) -> str:
        """Of the shards opened so far, in lot order."""
        return self._hash.hexdigest()

    def record(self) -> dict[str, Any]:
        """What the manifest of the reading run says of the shards that it has opened."""
        upstream = {"step": self.upstream.step, "fingerprint": self.upstream.fingerprint}
        return {"way": WAY, **upstream, "num_shards": len(self.parts), "content": self.content_digest}

    def verify(self, record: Mapping[str, Any]) -> None:
        """Raise InputChanged unless the first shards are those of an earlier `record`."""
        while len(self.parts) < record["num_shards"]:
            num_before = len(self.parts)
            self._open_next(record["num_shards"] - num_before)
            if len(self.parts) == num_before:
                raise Pin(self.store, shard_name(KEPT, num_before), "", what="source").changed("it is missing")
        first = hashlib.blake2b(digest_size=16)
        for part in self.parts[: record["num_shards"]]:
            first.update(bytes.fromhex(part.digest))
        if first.hexdigest() != record["content"]:
            raise InputChanged(
                f"the first {record['num_shards']:,} lots of {self.store.uri} are not those that this run has read; "
                f"{REMEDY}"
            )


def kept_digest(store: Store, num_lots: int) -> str:
    """The digest of the first `num_lots` kept shards of a run, as `CommittedRows.content_digest` has it.

    Raises UserError when a shard is missing or unreadable.
    """
    whole = hashlib.blake2b(digest_size=16)
    for meta in metas(store, range(num_lots)):
        whole.update(bytes.fromhex(meta["data_sha256"]))
    return whole.hexdigest()
