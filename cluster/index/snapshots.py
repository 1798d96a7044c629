"""Snapshots of the dedup index: the claims of a stretch of committed lots, OUT/index/claims-FIRST-STOP.bin.

A snapshot holds the claims of its own lots only, so each row is written once in a run of any length. All snapshots
together are the index. The driver writes them after the commits. They do not depend on the number of index actors, and
serve both kinds of index. A truncated, foreign or missing snapshot is detected; its claims are then read from the
shards and written again. You may delete the folder at any time.

An object is one line of JSON (identity, counts, a sha256 of everything else), then the rows' ask numbers relative to
the first lot, uint32 (n,), then the keys, uint64 (bands, n), both little-endian. A row takes 4 + 8 * bands bytes, 76 at
9 bands.
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
MAX_BYTES = 64 << 20  # of one snapshot, unless a single lot is larger
MAX_WAITING = 4  # unfinished puts; further snapshots are skipped, so that a slow store costs no memory
Claims = tuple[np.ndarray, np.ndarray]  # keys uint64 (n, bands), owners int64 (n,), in the order of owners


class BadSnapshot(Exception):
    """An object is not the expected snapshot; the message states why."""


@dataclass(frozen=True)
class Stretch:
    """Lots [first, stop), with the name of the snapshot of their claims, if one exists."""

    first: int
    stop: int
    name: str | None = None

    def __len__(self) -> int:
        return self.stop - self.first


def identity(plan: Plan, dedup: Duplicates) -> dict[str, Any]:
    """Identity of the claims. Its probe changes with the hash of bands, so that snapshots of other keys are refused."""
    return {
        "format": FORMAT,
        "fingerprint": plan.fingerprint,
        "generation": plan.generation,
        "lot_size": plan.lot_size,
        "bands": dedup.bands,
        "probe": hashlib.sha256(dedup.probe().tobytes()).hexdigest()[:16],
    }


def row_bytes(num_bands: int) -> int:
    """Bytes per row in a snapshot."""
    return 4 + 8 * num_bands


def name_of(first: int, stop: int) -> str:
    return f"{FOLDER}/claims-{first:08d}-{stop:08d}.bin"


def lots_of(name: str) -> tuple[int, int] | None:
    """(first, stop) of the name of a snapshot, None for any other object."""
    stem = name.removeprefix(f"{FOLDER}/claims-").removesuffix(".bin")
    first, _, stop = stem.partition("-")
    if not (first.isdigit() and stop.isdigit()) or name != name_of(int(first), int(stop)):
        return None
    return int(first), int(stop)


def encode(identity: dict[str, Any], first: int, stop: int, claims: Claims) -> bytes:
    """The snapshot of lots [first, stop) with `claims`, all of theirs."""
    keys, owners = claims
    offsets = (owners - first * identity["lot_size"]).astype("<u4").tobytes()
    columns = np.ascontiguousarray(keys.T, "<u8").tobytes()
    header = {**identity, "first": first, "stop": stop, "rows": len(owners)}
    head = {**header, "sha256": _digest(header, offsets, columns)}
    return b"".join((json.dumps(head).encode(), b"\n", offsets, columns))


def decode(data: bytes, identity: dict[str, Any], first: int, stop: int) -> Claims:
    """The claims in a snapshot, keys as a transposed view. Raises BadSnapshot unless it is the expected snapshot."""
    line, newline, _ = data.partition(b"\n")
    try:
        head = json.loads(line)
        header = {key: head[key] for key in (*identity, "first", "stop", "rows")}
        num_rows, num_bands = int(header["rows"]), int(identity["bands"])
    except (ValueError, KeyError, TypeError):
        raise BadSnapshot("not a snapshot") from None
    expected = {**identity, "first": first, "stop": stop}
    for key, value in expected.items():
        if header[key] != value:
            raise BadSnapshot(f"of another index ({key} is {header[key]!r}, not {value!r})")
    at = len(line) + len(newline)
    if len(data) - at != num_rows * row_bytes(num_bands):
        raise BadSnapshot("truncated")
    offsets, columns = memoryview(data)[at : at + 4 * num_rows], memoryview(data)[at + 4 * num_rows :]
    if _digest(header, offsets, columns) != head.get("sha256"):
        raise BadSnapshot("altered (its checksum does not match)")
    owners = np.frombuffer(offsets, "<u4").astype(np.int64) + first * identity["lot_size"]
    return np.frombuffer(columns, "<u8").reshape(num_bands, num_rows).T, owners


def _digest(header: dict[str, Any], *parts: Any) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def listed(store: Store) -> dict[str, int]:
    """Sizes in bytes of the snapshots, by name."""
    return {e.name: e.size for e in store.list(f"{FOLDER}/claims-") if lots_of(e.name)}


def cover(names: dict[str, int], num_lots: int) -> list[Stretch]:
    """Lots [0, num_lots) in stretches, with snapshots where they exist. Of several at one lot, the longest is used."""
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
    """Collects the claims of committed lots, in order, and puts a snapshot every `num_lots` lots, on a thread.

    A failed put, or a put that is skipped because too many are running, leaves a gap. The gap is logged and the run
    continues; a later start reads these shards.
    """

    def __init__(self, store: Store, identity: dict[str, Any], num_lots: int) -> None:
        self.store, self.identity, self.num_lots = store, identity, num_lots
        self._lots: list[tuple[int, Claims]] = []
        self._num_rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._puts: list[Future[str | None]] = []

    def add(self, lot: int, claims: Claims) -> None:
        """Add the claims of a committed lot. With `num_lots` 0 they are discarded."""
        if not self.num_lots:
            return
        if self._lots and self._lots[-1][0] != lot - 1:
            self._put()
        self._lots.append((lot, claims))
        self._num_rows += len(claims[1])
        is_full = self._num_rows * row_bytes(self.identity["bands"]) >= MAX_BYTES
        if len(self._lots) >= self.num_lots or is_full:
            self._put()

    def flush(self) -> None:
        """Put the added claims, and return when they are in the store."""
        self._put()
        self._log_problems(self._puts)
        self._puts = []

    def close(self) -> None:
        """Wait for the running put and drop the rest. A later start reads these lots from their shards."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _put(self) -> None:
        lots, self._lots, self._num_rows = self._lots, [], 0
        done = [put for put in self._puts if put.done()]
        self._puts = [put for put in self._puts if put not in done]
        self._log_problems(done)
        if not lots:
            return
        if len(self._puts) >= MAX_WAITING:
            return logger.warning(f"dedup index: the store is slow; no snapshot of lots {lots[0][0]} to {lots[-1][0]}")
        self._puts.append(self._thread.submit(self._write, lots))

    def _log_problems(self, puts: list[Future[str | None]]) -> None:
        for put in puts:
            if (problem := put.result()) is not None:
                logger.warning(problem)

    def _write(self, lots: list[tuple[int, Claims]]) -> str | None:
        first, stop = lots[0][0], lots[-1][0] + 1
        claims = np.concatenate([c[0] for _, c in lots]), np.concatenate([c[1] for _, c in lots])
        try:
            self.store.put(name_of(first, stop), encode(self.identity, first, stop, claims))
        except (UserError, OSError) as error:
            return f"dedup index: no snapshot of lots {first} to {stop - 1} ({error})"
        return None
