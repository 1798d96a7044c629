"""The index of dedup_semantic at a million kept rows: time a row asked, memory, and the load from snapshots.

The vectors are those of real texts, moved apart: each of a million rows is that of a passage of Python's documentation
plus `STEP` times the difference of two others. So they lie as texts do, many on one subject (a cosine of about
0.7) and few near a kept one. Beside them are random directions, and a threshold at which the bound leaves too many
pairs. The peer computes the cosine of every pair by BLAS in float32. Times are CPU seconds of one thread.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gristmill.cluster.connect import connected
from gristmill.cluster.index import snapshots
from gristmill.cluster.index.index import DedupIndex
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.lots import Plan
from gristmill.records.stores.local import LocalStore
from gristmill.stages.dedup.nearindex import NearIndex, keys_of
from gristmill.stages.dedup.products import is_int8_exact, one_thread
from gristmill.stages.dedup.semantic import DedupSemantic, DedupSemanticSpec
from gristmill.stages.embeddings import DEFAULT, dots, norms, quantise
from gristmill.stages.encoders.encoder import Encoder
from tests.bench.corpus import sentences

NUM_KEPT, NUM_ASKED, NUM_PEER = 1_000_000, 512, 50_000
NUM_TEXTS, STEP = 1500, 0.45
DIMENSION, KEYS, LOT, STRETCH = 384, 48, 512, 256
Row = dict[str, Any]


def texts() -> list[str]:
    """Passages of three sentences of Python's own documentation, in seeded order."""
    passages = [" ".join(three) for three in zip(sentences()[::3], sentences()[1::3], sentences()[2::3])]
    return [passages[at] for at in np.random.default_rng(0).permutation(len(passages))[:NUM_TEXTS]]


def text_like(units: np.ndarray, num_rows: int, seed: int) -> np.ndarray:
    """int8 (num_rows, DIMENSION) between the vectors of texts, float32 (n, DIMENSION)."""
    one, two, three = np.random.default_rng(seed).integers(0, len(units), (3, num_rows))
    return quantise(units[one] + np.float32(STEP) * (units[two] - units[three]))


def cpu_s(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def filled(kept: np.ndarray, threshold: float) -> tuple[NearIndex, float]:
    """An index of these rows, inserted in stretches as from snapshots, and the CPU seconds."""
    index, keys = NearIndex(KEYS, DIMENSION, threshold), keys_of(kept)
    size = LOT * STRETCH

    def fill() -> None:
        for start in range(0, len(keys), size):
            index.insert(keys[start : start + size], np.arange(start, min(start + size, len(keys))), is_settled=True)

    return index, cpu_s(fill)


def brute_force(kept: np.ndarray, asked: np.ndarray, threshold: float) -> None:
    limits, sizes = threshold * norms(asked), norms(kept)
    for start in range(0, len(kept), 8192):
        block = slice(start, start + 8192)
        np.nonzero(dots(asked, kept[block]) >= limits[:, None] * sizes[None, block] - 1e-6)


def ms_a_million(work: Callable[[], Any], num_pairs: int) -> float:
    """Milliseconds a queried row and million kept rows, the fastest of three."""
    work()
    return min(cpu_s(work) for _ in range(3)) / num_pairs * 1e9


def bench() -> Iterator[Row]:
    vectors = Encoder(DEFAULT).text_vectors(texts(), 126)
    units = (vectors / norms(vectors)[:, None]).astype(np.float32)
    kind = "int8" if is_int8_exact() else "float32 (no instructions for int8)"
    random = quantise(np.random.default_rng(2).normal(size=(NUM_ASKED, DIMENSION)))
    cases = (
        ("like texts, threshold 0.9", text_like(units, NUM_KEPT, 0), text_like(units, NUM_ASKED, 1), 0.9),
        ("like texts, threshold 0.95", None, text_like(units, NUM_ASKED, 1), 0.95),
        ("like texts, threshold 0.6", None, text_like(units, NUM_ASKED, 1), 0.6),
        ("random directions, threshold 0.9", _random(NUM_KEPT), random, 0.9),
    )
    kept = None
    with one_thread():
        for what, rows, asked, threshold in cases:
            kept = rows if rows is not None else kept
            assert kept is not None
            index, loading = filled(kept, threshold)
            keys = keys_of(asked)
            ours = ms_a_million(lambda index=index, keys=keys: index.query(keys), NUM_ASKED * NUM_KEPT)  # type: ignore[misc]
            few = kept[:NUM_PEER]
            peer = ms_a_million(lambda few=few, a=asked, t=threshold: brute_force(few, a, t), NUM_ASKED * NUM_PEER)  # type: ignore[misc]
            yield {
                "what": f"dedup_semantic, index of {NUM_KEPT:,} rows {what}: ms a row asked, one core, {kind}",
                "value": f"{ours:.2f}",
                "peer": f"every pair by BLAS: {peer:.1f}",
                "ratio": peer / ours,
                "target": "<= 1",
            }
    yield {
        "what": "dedup_semantic, index: bytes a kept row; CPU seconds to insert a million",
        "value": f"{index.nbytes / index.num_rows:.0f}; {loading:.1f}",
    }
    with tempfile.TemporaryDirectory() as folder, connected(ClusterSpec(num_cpus=2)):
        yield from _actors(LocalStore(folder), keys_of(kept), keys)


def _random(num_rows: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    parts = [quantise(draw.normal(size=(size, DIMENSION))) for size in np.diff([*range(0, num_rows, 65536), num_rows])]
    return np.concatenate(parts)


def _actors(store: LocalStore, kept: np.ndarray, asked: np.ndarray) -> Iterator[Row]:
    """Start from snapshots and the claim of a lot, with one and with two actors."""
    dedup = DedupSemantic(DedupSemanticSpec())
    plan = Plan("be9c" * 8, LOT, None, 1, "none")
    identity = snapshots.identity(plan, dedup)
    num_lots = len(kept) // LOT
    for first in range(0, num_lots, STRETCH):
        stop = min(first + STRETCH, num_lots)
        claims = kept[first * LOT : stop * LOT], np.arange(first * LOT, stop * LOT)
        store.put(snapshots.name_of(first, stop), snapshots.encode(identity, first, stop, claims))
    for num_actors in (1, 2):
        index = DedupIndex(plan, dedup, store, num_actors, 0, STRETCH)
        started = time.perf_counter()
        index.start(num_lots)
        starting = time.perf_counter() - started
        assert index.num_rows == num_lots * LOT
        index.query(num_lots, asked)
        took = []
        for _ in range(4):
            started = time.perf_counter()
            index.query(num_lots, asked)
            took.append(time.perf_counter() - started)
        index.stop()
        actors = f"{num_actors} actor{'s' if num_actors > 1 else ''}"
        yield {
            "what": f"dedup_semantic, {index.num_rows:,} rows from snapshots into {actors}; a claim of {LOT} rows then",
            "value": f"{starting:.1f} s; {min(took):.2f} s",
        }
