"""`dedup.against` at ten million existing rows: keys of corpora, the index of a node, and look-ups in it.

Keys are random. CPU time is this process's; the machine need not be quiet.
"""

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.spec import build
from gristmill.stages.dedup import existing
from gristmill.stages.dedup.existing import Index, write_index
from gristmill.stages.dedup.texts import Dedup, DedupSpec
from tests.bench.corpus import documents

NUM_ROWS, PIECE, BANDS, LOT, NUM_LOTS, NUM_TEXTS = 10_000_000, 1 << 16, 9, 512, 200, 20_000
Row = dict[str, Any]


def cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def pieces(folder: Path) -> list[pa.RecordBatch]:
    """Batches of random keys and ids, mapped from files as those of a cache are."""
    random, batches = np.random.default_rng(0), []
    for number, start in enumerate(range(0, NUM_ROWS, PIECE)):
        size = min(PIECE, NUM_ROWS - start)
        columns: dict[str, Any] = {"id": pa.array([f"{row:032x}" for row in range(start, start + size)])}
        columns |= {str(band): pa.array(random.integers(0, 1 << 64, size, np.uint64)) for band in range(BANDS)}
        batch = pa.record_batch(columns)
        with pa.ipc.new_file(str(folder / f"{number}"), batch.schema) as file:
            file.write_batch(batch)
        batches.append(existing._batch(folder / f"{number}"))
    return batches


def bench() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as name:
        folder = Path(name)
        texts = documents(NUM_TEXTS).to_pylist()
        (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        stage = Dedup(build(DedupSpec, {"against": [str(folder / "a.jsonl")]}, "stages[0]"))
        assert stage.existing is not None
        stage.existing._signed(stage.existing.corpora[0].read(stage.existing.pieces[0][1], "text"))  # compiles
        took = cpu_s(lambda: [stage.existing._signed(stage.existing.corpora[n].read(p, "text"))  # type: ignore
                              for n, p in stage.existing.pieces])  # type: ignore[union-attr]  # fmt: skip
        yield {"what": "keys of a JSONL corpus of 2 KB texts, one core", "value": f"{NUM_TEXTS / took:,.0f} rows/s"}
        signed = stage.signatures(pa.record_batch({"text": texts}))
        took = cpu_s(lambda: stage.keys(signed))
        yield {"what": "keys from stored signatures, one core", "value": f"{NUM_TEXTS / took:,.0f} rows/s"}
        batches = pieces(folder)
        (folder / "index").mkdir()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = cpu_s(lambda: write_index(folder / "index", batches, BANDS, [0] * len(batches)))
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        size = sum(file.stat().st_size for file in (folder / "index").iterdir())
        yield {
            "what": f"index of {NUM_ROWS:,} rows, {BANDS} bands, one core",
            "value": f"{took:.1f} s, {size / NUM_ROWS:.0f} bytes a row on disk, {grown_mb:,.0f} MB more in memory "
            "(mapped pieces included)",
        }
        index, random = Index(folder / "index"), np.random.default_rng(1)
        lots = [random.integers(0, 1 << 64, (LOT, BANDS), np.uint64) for _ in range(NUM_LOTS)]
        first = cpu_s(lambda: [index.query(lot) for lot in lots])
        again = cpu_s(lambda: [index.query(lot) for lot in lots])
        yield {
            "what": f"look-up of fresh rows among {NUM_ROWS:,}, lots of {LOT}, one core",
            "value": f"{LOT * NUM_LOTS / first:,.0f} rows/s, {LOT * NUM_LOTS / again:,.0f} a second time",
        }
