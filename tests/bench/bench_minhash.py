"""Deduplication on one core: signatures and the whole pass of a lot, beside plain datasketch in the same run."""

import re
import statistics
import time
import tracemalloc
from collections.abc import Callable

import datasketch
import numpy as np
import pyarrow as pa
import xxhash

from gristmill.stages.dedup.bandindex import BandIndex, resolve
from gristmill.stages.dedup.minhash import band_keys, signatures
from gristmill.stages.dedup.texts import Dedup, DedupSpec
from tests.bench.corpus import documents

NUM_BYTES, NUM_PERM, NGRAM, LOT = 2048, 128, 5, 512
NUM_OURS, NUM_PEER, NUM_ROUNDS = 20_000, 400, 5
NUM_INDEXED = 1_000_000  # rows in the index beforehand, so that lookups miss the caches as in a real run
Claims = tuple[np.ndarray, np.ndarray]
PERMUTATIONS = datasketch.MinHash(NUM_PERM).permutations  # drawn once, as one does who makes many sketches


def shingles(text: str) -> set[bytes]:
    """Word 5-grams as one writes them in Python; a set, which spares datasketch the repeats."""
    words = re.findall(rb"[a-z0-9]+", text.lower().encode())
    return {b" ".join(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))}


def sketch(text: str) -> datasketch.MinHash:
    """datasketch's fast path: one batch a document, hashed by xxHash instead of its default SHA-1."""
    made = datasketch.MinHash(NUM_PERM, hashfunc=xxhash.xxh32_intdigest, permutations=PERMUTATIONS, scheme="affine32")
    made.update_batch(shingles(text))
    return made


def plain_pass(texts: list[str]) -> int:
    """Sketch, query and insert with MinHashLSH, document by document; the number kept."""
    index = datasketch.MinHashLSH(threshold=0.8, num_perm=NUM_PERM)
    for number, text in enumerate(texts):
        made = sketch(text)
        if not index.query(made):
            index.insert(number, made)
    return len(index.keys)


def our_pass(stage: Dedup, index: BandIndex, lots: list[pa.StringArray], first_owner: int) -> list[Claims]:
    """Lot by lot from text to claims, as a run does it; the claims of each lot's kept rows."""
    claims = []
    for texts in lots:
        keys = band_keys(signatures(texts, NUM_PERM, NGRAM), stage.bands, stage.rows)
        alive = np.ones(len(texts), bool)
        owners = resolve(keys, index.query(keys), alive, first_owner)
        kept = np.flatnonzero(alive & (owners < 0))
        index.insert(keys[kept], first_owner + kept)
        first_owner += len(texts)
        claims.append((keys[kept], first_owner - len(texts) + kept))
    return claims


def rates(num: int, work: Callable[[], object], restore: Callable[[], object] = lambda: None) -> list[float]:
    """Documents a second over several rounds; `restore`, untimed, undoes what a round left behind."""
    found = []
    for _ in range(NUM_ROUNDS):
        started = time.perf_counter()
        work()
        found.append(num / (time.perf_counter() - started))
        restore()
    return found


def said(found: list[float]) -> str:
    return f"{statistics.median(found):,.0f} docs/s (best of {len(found)}: {max(found):,.0f})"


def row(what: str, ours: str, peer: str, ratio: float, target: str) -> dict[str, object]:
    return {"what": what, "value": ours, "peer": peer, "ratio": ratio, "target": target}


def bench() -> list[dict[str, object]]:
    """Rows of {"what", "value", "peer", "ratio", "target"}; rates are medians, a ratio above 1 is in our favour."""
    stage = Dedup(DedupSpec())
    stage.open()
    texts = documents(NUM_OURS, NUM_BYTES)
    few = texts[:NUM_PEER].to_pylist()

    ours = rates(NUM_OURS, lambda: signatures(texts, NUM_PERM, NGRAM))
    peer = rates(NUM_PEER, lambda: [sketch(t) for t in few])
    what = f"MinHash signatures, {NUM_BYTES} B documents, {NUM_PERM} permutations, word {NGRAM}-grams, one core"
    ratio = statistics.median(ours) / statistics.median(peer)
    rows = [row(what, said(ours), f"datasketch + xxhash: {said(peer)}", ratio, ">= 100,000 docs/s")]

    index = BandIndex(stage.bands)
    filler = np.random.default_rng(0)
    for first in range(0, NUM_INDEXED, 50_000):
        keys = filler.integers(0, 2**64, (50_000, stage.bands), np.uint64)
        index.insert(keys, np.arange(first, first + 50_000))
    # One document in ten is the copy of an earlier one with its first words cut off.
    mixed = texts.to_pylist()
    mixed[9::10] = [t[40:] for t in mixed[4::10]]
    column = pa.array(mixed)
    lots = [column[i : i + LOT] for i in range(0, len(column), LOT)]
    kept: list[list[Claims]] = []
    ours = rates(
        NUM_OURS,
        lambda: kept.append(our_pass(stage, index, lots, NUM_INDEXED)),
        lambda: [index.retract(*claims) for claims in kept[-1]],
    )
    peer = rates(NUM_PEER, lambda: plain_pass(mixed[:NUM_PEER]))
    what = f"dedup end to end, text to claims, lots of {LOT}, {NUM_INDEXED:,} rows in the index, one core"
    num_kept = sum(len(owners) for _, owners in kept[0])
    what += f" ({NUM_OURS - num_kept:,} of {NUM_OURS:,} found duplicate)"
    ratio = statistics.median(ours) / statistics.median(peer)
    rows.append(row(what, said(ours), f"datasketch MinHashLSH: {said(peer)}", ratio, ">= 50,000 docs/s"))

    sketches = [sketch(t) for t in few]
    tracemalloc.start()
    plain = datasketch.MinHashLSH(threshold=0.8, num_perm=NUM_PERM)
    for number, made in enumerate(sketches):
        plain.insert(number, made)
    peer_bytes = tracemalloc.get_traced_memory()[0] / NUM_PEER
    tracemalloc.stop()
    most = 0.0
    index = BandIndex(stage.bands)
    for first in range(0, 300_000, 1000):
        keys = filler.integers(0, 2**64, (1000, stage.bands), np.uint64)
        index.insert(keys, np.arange(first, first + 1000))
        most = max(most, index.nbytes / index.num_rows) if first >= 10_000 else 0.0
    what = f"index memory a row, {stage.bands} bands, the most at any fill from 10,000 to 300,000 rows"
    ours_said, peer_said = f"{most:.0f} bytes", f"datasketch MinHashLSH: {peer_bytes:,.0f} bytes"
    return [*rows, row(what, ours_said, peer_said, peer_bytes / most, "<= 200 bytes")]


if __name__ == "__main__":
    for line in bench():
        print(line)
