"""The quality classifier on one core: texts a second in bulk, beside scikit-learn's hashed n-grams and its sigmoid."""

import tempfile
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.stages.filters.quality import Quality, QualitySpec
from tests.bench.bench_verify import best_s
from tests.bench.corpus import documents
from tests.engines.models import fit_of, judged

NUM_BYTES, NUM_DOCUMENTS, NUM_PEER = 2048, 4096, 256


def bench() -> list[dict[str, Any]]:
    from sklearn.feature_extraction.text import HashingVectorizer

    texts = documents(NUM_DOCUMENTS, NUM_BYTES)
    batch = pa.RecordBatch.from_pydict({"text": texts, "reject": pa.nulls(len(texts), pa.string())})
    with tempfile.TemporaryDirectory() as folder:
        fit_of(judged(400), folder).run()
        stage = Quality(QualitySpec(folder))
        stage.open()
    rate = len(texts) / best_s(lambda: stage.run(batch))
    some = texts.slice(0, NUM_PEER).to_pylist()
    words = HashingVectorizer(n_features=1 << 18, ngram_range=(1, 2), binary=True)
    bytes_ = HashingVectorizer(n_features=1 << 18, ngram_range=(5, 5), binary=True, analyzer="char", lowercase=False)
    weights = np.random.default_rng(0).normal(0, 1, 1 << 18)

    def peer() -> np.ndarray:
        return 1 / (1 + np.exp(-(words.transform(some) @ weights + bytes_.transform(some) @ weights)))

    peer_rate = len(some) / best_s(peer, rounds=3)
    return [
        {
            "what": "quality, 2 KB texts/s/core (peer: scikit-learn's HashingVectorizer, as many n-grams)",
            "value": round(rate),
            "peer": round(peer_rate),
            "ratio": rate / peer_rate,
            "target": ">= 5,000",
        }
    ]


if __name__ == "__main__":
    for row in bench():
        print(row)
