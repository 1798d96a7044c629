"""The take-down list in a mixture: which rows of each part are left out before the draw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs.release.mixture.parts import Part
from gristmill.jobs.release.takedown.listing import NUM_BYTES, Keys, key
from gristmill.jobs.release.takedown.trace import Takedown

MATCHES = {"id": "matched_ids", "source_id": "matched_sources"}  # in the result of a scan


@dataclass(frozen=True)
class Removal:
    """The rows of a part that are left out: by their ids, and in data files by their source ids too."""

    ids: Keys
    sources: Keys | None = None
    files: frozenset[str] = frozenset()  # files that are left out as a whole

    def counter(self, file: str) -> "RemovalCounter":
        return RemovalCounter(self, file in self.files)


class RemovalCounter:
    """Which rows of a chunk stay, and what of the list has matched there."""

    def __init__(self, removal: Removal, is_whole: bool) -> None:
        self._removal, self._is_whole = removal, is_whole  # whether the whole file is left out
        self._stays: list[np.ndarray] = []
        self._matches: dict[str, list[bytes]] = {name: [] for name in MATCHES.values()}
        self._num_rows = 0

    def add(self, rows: pa.Table) -> None:
        """Look at more rows of the chunk, with their columns `id` and `source_id`."""
        ids = rows.column("id").to_pylist()
        is_removed = self._removal.ids.has(ids)
        if self._removal.sources is not None:
            sources = rows.column("source_id").to_pylist()
            by_source = self._removal.sources.has(sources)
            for kind, values, hits in (("id", ids, is_removed), ("source_id", sources, by_source)):
                self._matches[MATCHES[kind]] += [key(values[at]) for at in np.flatnonzero(hits)]
            is_removed = is_removed | by_source | self._is_whole
            self._num_rows += int(is_removed.sum())
        self._stays.append(~is_removed)

    def facts(self) -> dict[str, Any]:
        """`stays`: bool (n,) as bytes, true for a row that stays. For data files also the keys that matched."""
        facts: dict[str, Any] = {"stays": np.concatenate([np.empty(0, bool), *self._stays]).tobytes()}
        if self._removal.sources is not None:
            facts |= {name: b"".join(keys) for name, keys in self._matches.items()} | {"num_removed": self._num_rows}
        return facts


def leave_out(parts: Sequence[Part], takedown: Takedown) -> None:
    """Give each part the rows that it leaves out; traces its run or release."""
    for part in parts:
        if part.has_provenance and part.store is not None:
            traced = takedown.trace(part.store)
            takedown.leave_out(traced)
            part.removal = Removal(traced.keys)
        else:
            files = frozenset(_listed_files(part, takedown))
            part.removal = Removal(takedown.keys("id"), takedown.keys("source_id"), files)


def _listed_files(part: Part, takedown: Takedown) -> list[str]:
    """The files of a part, as its chunks name them, that are on the list by their SHA-256."""
    if part.store is None:
        return []
    store = part.store
    named = {chunk.file: chunk.file.removeprefix(f"{store.uri.rstrip('/')}/") for chunk in part.chunks}
    entries = {entry.name: entry for entry in store.list() if entry.name in named.values()}
    listed = takedown.match_files(store, list(entries.values()))
    return [file for file, name in named.items() if name in listed]


def note_matches(takedown: Takedown, scans: Iterable[dict[str, Any]]) -> None:
    """Count what the list has matched in data files."""
    for result in scans:
        for kind, name in MATCHES.items():
            data = result.get(name, b"")
            for at in range(0, len(data), NUM_BYTES):
                takedown.match("id" if kind == "id" else "source_id", data[at : at + NUM_BYTES])
        takedown.num_rows["listed"] += result.get("num_removed", 0)
