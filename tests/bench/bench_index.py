"""The dedup index at ten million rows: claims through real actors, snapshots, rebuild from shards, Bloom filters.

Keys are random, so every row is kept, which is the dearest case. The peers are datasketch's MinHashLSH and, where its
optional C extension is installed (`pip install datasketch[bloom]`), its MinHashLSHBloom, at sizes that they can do.
"""

import importlib.util
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasketch
import numpy as np
import pyarrow as pa
import pytest

from gristmill.cluster.connect import connected
from gristmill.cluster.index import snapshots
from gristmill.cluster.index.index import DedupIndex
from gristmill.cluster.lots.sequencer import CommitSequencer
from gristmill.cluster.lots.work import LotPipeline, LotResult
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.lots import Plan, asks
from gristmill.records.output.shards import KEPT, OutputSpec, encode, shard_name
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import ASK, full_schema, set_column
from gristmill.records.stores.contract import Store
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store
from gristmill.stages.dedup.minhash import band_keys, to_datasketch
from gristmill.stages.dedup.texts import Dedup, DedupSpec
from tests.s3server import S3Server

NUM_ROWS, LOT, TOGETHER = 10_000_000, 512, 16
NUM_TIMED_LOTS = 200
NUM_SHARDS, NUM_S3_SHARDS = 1024, 256
NUM_PEER, NUM_TRACED = 100_000, 10_000
ERROR = 0.001
WORDS = 345  # in a document of 2 KB: a signature holds the minima of so many hashes
EXACT, BLOOM = DedupSpec(), DedupSpec(index="bloom", bloom_rows=NUM_ROWS, bloom_error=ERROR)
PLAN = Plan("be9c" * 8, LOT, None, 1, "none")
BANDS = Dedup(EXACT).bands
Row = dict[str, Any]


def row(what: str, value: str, peer: str = "", ratio: float | None = None, target: str = "") -> Row:
    return {"what": what, "value": value, "peer": peer, "ratio": ratio, "target": target}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def made(store: Store, num_actors: int, spec: DedupSpec = EXACT, snapshot_lots: int = 1024) -> CommitSequencer:
    dedup = Dedup(spec)
    pipeline = LotPipeline(PLAN, [dedup], full_schema([], dedup.columns()), OutputSpec())
    spec_of_cluster = ClusterSpec(index_actors=num_actors, max_retries=0, snapshot_lots=snapshot_lots)
    return CommitSequencer(pipeline, store, spec_of_cluster)


def index_of(sequencer: CommitSequencer) -> DedupIndex:
    assert sequencer.index
    return sequencer.index


def claim(sequencer: CommitSequencer, first: int, num_lots: int, together: int) -> float:
    """Claim and commit lots of random keys, so many at a time; the seconds that the claims take."""
    rng, took = np.random.default_rng(first), 0.0
    for start in range(first, first + num_lots, together):
        keys = rng.integers(0, 2**64, (together, LOT, BANDS), np.uint64)
        lots = [(start + n, LotResult(np.ones(LOT, bool), keys[n], {})) for n in range(together)]
        began = time.perf_counter()
        sequencer.claim(lots)
        took += time.perf_counter() - began
        for lot, _ in lots:
            sequencer.committed(lot)
    return took


def bench() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        server = S3Server(folder)
        for key, value in server.env.items():
            patch.setenv(key, value)  # before Ray starts its workers
        server.start()
        try:
            with connected(ClusterSpec(num_cpus=os.cpu_count())):
                yield from _at_size(LocalStore(f"{folder}/out"), open_store("s3://mill/index"))
                yield from _rebuild(LocalStore(f"{folder}/shards"), open_store("s3://mill/shards"))
        finally:
            server.kill()
    yield _exact_peer()
    yield _bloom_peer()


def _at_size(local: Store, remote: Store) -> Iterator[Row]:
    """Fill by claims, then start again and again from the snapshots that the fill has left."""
    num_lots = NUM_ROWS // (LOT * TOGETHER) * TOGETHER  # no shards stand behind them: snapshots must hold them all
    size = f"{num_lots * LOT / 1e6:.0f} million rows"
    sequencer = made(local, 1)
    index = index_of(sequencer)
    index.start(0)
    took = claim(sequencer, 0, num_lots, TOGETHER)
    value = f"{num_lots * LOT / took:,.0f} rows/s, {index.nbytes / index.num_rows:.0f} bytes a row"
    yield row(f"fill of the index by claims to {size}, 1 actor", value, target=">= 10,000 rows/s, <= 200 bytes a row")
    index.flush()
    index.stop()
    names = snapshots.listed(local)
    for where, store in (("local disk", LocalStore(f"{local.uri}-copy")), ("SeaweedFS", remote)):
        took = sum(_copy(local, store, name) for name in names)
        per_row = sum(names.values()) / num_lots / LOT
        value = f"{took:.1f} s, {sum(names.values()) / 1e6:,.0f} MB ({per_row:.1f} bytes a row)"
        yield row(f"snapshots of {size} written to {where}", value)
    for where, store, num_actors, spec in (
        ("local disk", local, 1, EXACT),
        ("local disk", local, 2, EXACT),
        ("SeaweedFS", remote, 2, EXACT),
        ("local disk", local, 4, EXACT),
        ("local disk", local, 2, BLOOM),
    ):
        sequencer = made(store, num_actors, spec)
        index = index_of(sequencer)
        took = seconds(lambda index=index: index.start(num_lots))  # type: ignore[misc]
        assert index.num_rows == num_lots * LOT
        actors = f"{num_actors} actor{'s' if num_actors > 1 else ''}"
        kind = "exact index" if spec is EXACT else "Bloom filters"
        value = f"{took:.1f} s, {index.num_rows / took:,.0f} rows/s, {index.nbytes / index.num_rows:.1f} bytes a row"
        yield row(f"{kind} of {size} from snapshots on {where}, {actors}", value)
        if spec is BLOOM:
            yield _false_duplicates(index, size)
        if store is local:
            yield _claims(sequencer, num_lots, f"{kind} of {size}, {actors}")
        index.stop()  # its snapshots reach beyond `num_lots`, so the next start removes them


def _copy(store: Store, to: Store, name: str) -> float:
    data = store.read(name)
    return seconds(lambda: to.put(name, data))


def _claims(sequencer: CommitSequencer, first: int, what: str) -> Row:
    """What a lot costs the driver, and the rate of claims."""
    claim(sequencer, first, 32, 1)
    first += 32
    alone = claim(sequencer, first, NUM_TIMED_LOTS, 1) / NUM_TIMED_LOTS * 1e3
    first += NUM_TIMED_LOTS
    many = claim(sequencer, first, NUM_TIMED_LOTS, 8) / NUM_TIMED_LOTS * 1e3
    value = f"{alone:.2f} ms a lot one by one, {many:.2f} ms eight together: {LOT / many * 1e3:,.0f} rows/s"
    return row(f"claims of lots of {LOT}, {what}", value)


def _false_duplicates(index: DedupIndex, size: str) -> Row:
    rng, found = np.random.default_rng(1), 0
    for _ in range(20):
        asked = rng.integers(0, 2**64, (50_000, BANDS), np.uint64)
        found += int((index.query(0, asked) != -1).sum())
    return row(
        f"fresh rows that full filters of {size} call duplicates",
        f"{found / 1e6:.6f}",
        f"stated: {ERROR}",
        found / 1e6 / ERROR,
    )


def signatures(num_rows: int, seed: int) -> np.ndarray:
    """Of documents of WORDS distinct shingles: minima of so many hashes, uint32 (num_rows, 128)."""
    least = np.random.default_rng(seed).exponential(2**32 / WORDS, (num_rows, EXACT.num_perm))
    return np.minimum(least, 2**32 - 1).astype(np.uint32)


def _rebuild(local: Store, remote: Store) -> Iterator[Row]:
    """Shards of short rows with real signatures, read back without and with snapshots."""
    dedup = Dedup(EXACT)
    source = open_source(SourceSpec(items=("a",), cycle=True))
    schema = full_schema([], dedup.columns())
    for lot in range(NUM_SHARDS):
        batch = asks(PLAN, source, lot).drop_columns([ASK.name])
        column = pa.FixedSizeListArray.from_arrays(pa.array(signatures(LOT, lot).reshape(-1)), EXACT.num_perm)
        for field, values in zip(dedup.columns(), (column, pa.nulls(LOT, pa.string()))):
            batch = set_column(batch, field, values.cast(field.type))
        encoded = encode(batch, schema, lot, OutputSpec())
        local.put(shard_name(KEPT, lot), encoded.kept)
        if lot < NUM_S3_SHARDS:
            remote.put(shard_name(KEPT, lot), encoded.kept)
    for where, store, num_lots in (("local disk", local, NUM_SHARDS), ("SeaweedFS", remote, NUM_S3_SHARDS)):
        few, index = index_of(made(store, 2)), index_of(made(store, 2))
        starting = seconds(lambda few=few: few.start(2))  # type: ignore[misc]
        few.stop()
        took = seconds(lambda index=index, num_lots=num_lots: index.start(num_lots))  # type: ignore[misc]
        value = f"{took:.1f} s, of which {starting:.1f} s are the processes' start"
        value += f"; {index.num_rows / max(took - starting, 1e-9):,.0f} rows/s without that"
        yield row(f"rebuild of {index.num_rows:,} rows from {num_lots:,} shards on {where}, 2 actors", value)
        index.stop()


def _exact_peer() -> Row:
    """datasketch's own index at a size that it can hold, beside ours in one process."""
    signed = signatures(NUM_PEER, 0)
    sketches = [to_datasketch(s) for s in signed]
    plain = datasketch.MinHashLSH(threshold=EXACT.threshold, num_perm=EXACT.num_perm)

    def fill() -> None:
        for number, sketch in enumerate(sketches):
            if not plain.query(sketch):
                plain.insert(number, sketch)

    took = seconds(fill)
    tracemalloc.start()
    traced = datasketch.MinHashLSH(threshold=EXACT.threshold, num_perm=EXACT.num_perm)
    for number, sketch in enumerate(sketches[:NUM_TRACED]):
        traced.insert(number, sketch)
    num_bytes = tracemalloc.get_traced_memory()[0] / NUM_TRACED
    tracemalloc.stop()
    ours = _fill_here(EXACT, signed)
    value = f"{NUM_PEER / ours:,.0f} rows/s"
    peer = f"datasketch MinHashLSH: {NUM_PEER / took:,.0f} rows/s, {num_bytes:,.0f} bytes a row"
    return row(f"query and insert of {NUM_PEER:,} signatures in one process, exact", value, peer, took / ours)


def _fill_here(spec: DedupSpec, signed: np.ndarray) -> float:
    """Seconds from signatures to claims in lots, without Ray."""
    dedup = Dedup(spec)
    index = dedup.new_index(dedup.bands)

    def fill() -> None:
        for start in range(0, len(signed), LOT):
            keys = band_keys(signed[start : start + LOT], dedup.bands, dedup.rows)
            kept = np.flatnonzero(index.query(keys) == -1)
            index.insert(keys[kept], start + kept, is_settled=True)

    fill()  # compiles
    index = dedup.new_index(dedup.bands)
    return seconds(fill)


def _bloom_peer() -> Row:
    """datasketch's LSHBloom with the same stated error over all bands, and what it says of fresh signatures."""
    signed, fresh = signatures(NUM_PEER, 0), signatures(NUM_PEER, 1)
    spec = DedupSpec(index="bloom", bloom_rows=NUM_PEER, bloom_error=ERROR)
    dedup = Dedup(spec)
    ours = _fill_here(spec, signed)
    index = dedup.new_index(dedup.bands)
    index.insert(band_keys(signed, dedup.bands, dedup.rows), np.arange(NUM_PEER), is_settled=True)
    wrong = float((index.query(band_keys(fresh, dedup.bands, dedup.rows)) != -1).mean())
    what = f"query and insert of {NUM_PEER:,} signatures in one process, filters of error {ERROR}"
    value = f"{NUM_PEER / ours:,.0f} rows/s, {index.nbytes / NUM_PEER:.1f} bytes a row, {wrong:.5f} false duplicates"
    if importlib.util.find_spec("pybloomfilter") is None:
        return row(what, value, "datasketch MinHashLSHBloom: not installed (datasketch[bloom], needs a C compiler)")
    with tempfile.TemporaryDirectory() as folder:
        error = 1 - (1 - ERROR) ** (1 / dedup.bands)
        peer = datasketch.MinHashLSHBloom(EXACT.threshold, EXACT.num_perm, NUM_PEER, error, folder)
        sketches = [to_datasketch(s) for s in signed]

        def fill() -> None:
            for sketch in sketches:
                if not peer.query(sketch):
                    peer.insert(sketch)

        took = seconds(fill)
        peer.sync()
        num_bytes = sum(file.stat().st_size for file in Path(folder).iterdir()) / NUM_PEER
        peer_wrong = float(np.mean([peer.query(to_datasketch(s)) for s in fresh]))
    told = f"{NUM_PEER / took:,.0f} rows/s, {num_bytes:.1f} bytes a row, {peer_wrong:.5f} false duplicates"
    return row(what, value, f"datasketch MinHashLSHBloom: {told}", took / ours)
