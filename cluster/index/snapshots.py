"""Snapshots of the dedup index: the claims of a stretch of committed lots, OUT/index/claims-FIRST-STOP.bin.

A snapshot holds the claims of its own lots only, so each row is written once, however long a run becomes; all of them
together are the index. They are written by the driver once their lots are committed, whatever the number of index
actors, and serve either kind of index. Nothing in them is trusted: one that is torn, foreign or missing costs the
reading of its lots' shards, from which it is written anew. The folder may be deleted at any time.

An object is one line of JSON (whose it is, counts, a sha256 over all else), then the rows' ask numbers from the first
lot on, uint32 (n,), then the keys, uint64 (bands, n), both little-endian: 4 + 8 * bands bytes a row, 76 at 9 bands.
"""

import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.records.errors import UserError
from gristmill.records.lots import Plan
from gristmill.records.stores.contract import Store
from gristmill.stages.dedup.contract import Duplicates

logger = logging.getLogger(__name__)

FOLDER = "index"
FORMAT = 1
MAX_BYTES = 64 << 20  # of one snapshot, as far as a single lot allows
MAX_WAITING = 4  # snapshots whose put has not ended; more are left out, so that a slow store costs no memory
Claims = tuple[np.ndarray, np.ndarray]  # keys uint64 (n, bands), owners int64 (n,), in the order of owners


class BadSnapshot(Exception):
    """An object that is not the snapshot it should be; says why."""


@dataclass(frozen=True)
class Stretch:
    """Lots first to stop - 1, with the snapshot that should hold their claims, if there is one."""

    first: int
    stop: int
    name: str | None = None

    def __len__(self) -> int:
        return self.stop - self.first


def identity(plan: Plan, dedup: Duplicates) -> dict[str, Any]:
    """Whose claims they are. A probe is in it, so that keys of another way to hash bands are not taken for ours."""
    return {
        "format": FORMAT,
        "fingerprint": plan.fingerprint,
        "generation": plan.generation,
        "lot_size": plan.lot_size,
        "bands": dedup.bands,
        "probe": hashlib.sha256(dedup.probe().tobytes()).hexdigest()[:16],
    }


def row_bytes(num_bands: int) -> int:
    """Bytes of one row's claims in a snapshot."""
    return 4 + 8 * num_bands


def name_of(first: int, stop: int) -> str:
    return f"{FOLDER}/claims-{first:08d}-{stop:08d}.bin"


def lots_of(name: str) -> tuple[int, int] | None:
    """(first, stop) of a snapshot's name, None for any other object."""
    stem = name.removeprefix(f"{FOLDER}/claims-").removesuffix(".bin")
    first, _, stop = stem.partition("-")
    if not (first.isdigit() and stop.isdigit()) or name != name_of(int(first), int(stop)):
        return None
    return int(first), int(stop)


def encode(whose: dict[str, Any], first: int, stop: int, claims: Claims) -> bytes:
    """The snapshot of lots first to stop - 1. `claims` are all of theirs."""
    keys, owners = claims
    offsets = (owners - first * whose["lot_size"]).astype("<u4").tobytes()
    columns = np.ascontiguousarray(keys.T, "<u8").tobytes()
    told = {**whose, "first": first, "stop": stop, "rows": len(owners)}
    head = {**told, "sha256": _digest(told, offsets, columns)}
    return b"".join((json.dumps(head).encode(), b"\n", offsets, columns))


def decode(data: bytes, whose: dict[str, Any], first: int, stop: int) -> Claims:
    """The claims in a snapshot, keys as a transposed view. Raises BadSnapshot for any but the one that is expected."""
    line, newline, _ = data.partition(b"\n")
    try:
        head = json.loads(line)
        told = {key: head[key] for key in (*whose, "first", "stop", "rows")}
        num_rows, num_bands = int(told["rows"]), int(whose["bands"])
    except (ValueError, KeyError, TypeError):
        raise BadSnapshot("not a snapshot") from None
    expected = {**whose, "first": first, "stop": stop}
    for key, value in expected.items():
        if told[key] != value:
            raise BadSnapshot(f"of another index ({key} is {told[key]!r}, not {value!r})")
    at = len(line) + len(newline)
    if len(data) - at != num_rows * row_bytes(num_bands):
        raise BadSnapshot("torn")
    offsets, columns = memoryview(data)[at : at + 4 * num_rows], memoryview(data)[at + 4 * num_rows :]
    if _digest(told, offsets, columns) != head.get("sha256"):
        raise BadSnapshot("altered (not the bytes of its checksum)")
    owners = np.frombuffer(offsets, "<u4").astype(np.int64) + first * whose["lot_size"]
    return np.frombuffer(columns, "<u8").reshape(num_bands, num_rows).T, owners


def _digest(told: dict[str, Any], *parts: Any) -> str:
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def listed(store: Store) -> dict[str, int]:
    """Sizes in bytes of the snapshots, by name."""
    return {e.name: e.size for e in store.list(f"{FOLDER}/claims-") if lots_of(e.name)}


def cover(names: dict[str, int], num_lots: int) -> list[Stretch]:
    """Lots 0 to num_lots - 1 in stretches: of a snapshot where there is one, without where there is none.

    Where several begin at one lot, the longest is taken.
    """
    stops: dict[int, int] = {}
    for first, stop in filter(None, map(lots_of, names)):
        if first < stop <= num_lots:
            stops[first] = max(stop, stops.get(first, 0))
    firsts = sorted(stops)
    stretches, at = [], 0
    while at < num_lots:
        if at in stops:
            stretches.append(Stretch(at, stops[at], name_of(at, stops[at])))
        else:
            later = bisect_right(firsts, at)
            stretches.append(Stretch(at, firsts[later] if later < len(firsts) else num_lots))
        at = stretches[-1].stop
    return stretches


def cut(stretch: Stretch, num_lots: int) -> Iterator[Stretch]:
    """A stretch without a snapshot in pieces of at most `num_lots` lots."""
    for first in range(stretch.first, stretch.stop, num_lots):
        yield Stretch(first, min(first + num_lots, stretch.stop))


class SnapshotWriter:
    """Takes the claims of committed lots in their order and puts a snapshot every `num_lots` lots, on a thread.

    A put that fails, or comes while too many are under way, leaves a gap that costs a later start the reading of these
    shards, and nothing else: it is told and the run goes on.
    """

    def __init__(self, store: Store, whose: dict[str, Any], num_lots: int) -> None:
        self.store, self.whose, self.num_lots = store, whose, num_lots
        self._lots: list[tuple[int, Claims]] = []
        self._num_rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._puts: list[Future[str | None]] = []

    def add(self, lot: int, claims: Claims) -> None:
        """The claims of a lot that is committed. With `num_lots` 0 they are forgotten."""
        if not self.num_lots:
            return
        if self._lots and self._lots[-1][0] != lot - 1:
            self._put()
        self._lots.append((lot, claims))
        self._num_rows += len(claims[1])
        is_full = self._num_rows * row_bytes(self.whose["bands"]) >= MAX_BYTES
        if len(self._lots) >= self.num_lots or is_full:
            self._put()

    def flush(self) -> None:
        """Put what has been added, and return when all of it is in the store."""
        self._put()
        self._tell(self._puts)
        self._puts = []

    def close(self) -> None:
        """Let a put that has begun end, and drop the rest: whoever resumes reads these lots' shards."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _put(self) -> None:
        lots, self._lots, self._num_rows = self._lots, [], 0
        done = [put for put in self._puts if put.done()]
        self._puts = [put for put in self._puts if put not in done]
        self._tell(done)
        if not lots:
            return
        if len(self._puts) >= MAX_WAITING:
            return logger.warning(f"dedup index: the store is slow; no snapshot of lots {lots[0][0]} to {lots[-1][0]}")
        self._puts.append(self._thread.submit(self._write, lots))

    def _tell(self, puts: list[Future[str | None]]) -> None:
        for put in puts:
            if (word := put.result()) is not None:
                logger.warning(word)

    def _write(self, lots: list[tuple[int, Claims]]) -> str | None:
        first, stop = lots[0][0], lots[-1][0] + 1
        claims = np.concatenate([c[0] for _, c in lots]), np.concatenate([c[1] for _, c in lots])
        try:
            self.store.put(name_of(first, stop), encode(self.whose, first, stop, claims))
        except (UserError, OSError) as error:
            return f"dedup index: no snapshot of lots {first} to {stop - 1} ({error})"
        return None
