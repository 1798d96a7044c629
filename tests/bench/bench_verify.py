"""Verification on one core: decontamination against 10 million n-grams, quality rules, language identification."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.stages.decontaminate.benchmarks import Benchmark
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec, Index
from gristmill.stages.filters.language import Language, LanguageSpec
from gristmill.stages.filters.language_model import load_identifier
from gristmill.stages.filters.rules import SETS, Rules, RulesSpec
from tests.bench.corpus import documents

NUM_BYTES, NUM_DOCUMENTS, NUM_ROUNDS = 2048, 4096, 5
NUM_ITEMS, ITEM_WORDS = 100_000, 112  # with 13-grams: 100 distinct ones an item, 10 million in all
VOCABULARY = 50_000


def best_s(work: Callable[[], Any], rounds: int = NUM_ROUNDS) -> float:
    """Seconds of the fastest of some rounds, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def random_items() -> pa.LargeStringArray:
    """Benchmark items of random words, so that no two n-grams are alike and clean text holds none of them."""
    words = np.array([f"w{number:x}q" for number in range(VOCABULARY)], dtype=object)
    draws = np.random.default_rng(0).integers(0, VOCABULARY, (NUM_ITEMS, ITEM_WORDS))
    return pa.array([" ".join(words[draw]) for draw in draws], pa.large_string())


def decontamination(texts: pa.StringArray) -> list[dict[str, Any]]:
    spec = DecontaminateSpec((Benchmark("random", "in memory"),))
    items = random_items()
    started = time.perf_counter()
    names = pa.array(["random"] * NUM_ITEMS)
    index = Index.of(spec, names, pa.array([str(n) for n in range(NUM_ITEMS)]), items)
    built_s = time.perf_counter() - started
    stage = Decontaminate(spec)
    stage._index = index
    batch = pa.RecordBatch.from_pydict({"text": texts, "reject": pa.nulls(len(texts), pa.string())})
    taken_s = best_s(lambda: stage.run(batch))
    rate = len(texts) * NUM_BYTES / taken_s / 1e6
    return [
        {"what": f"decontaminate, {len(index.keys):,} n-grams, MB/s of text", "value": round(rate), "target": ">= 50"},
        {"what": f"decontaminate, index of {len(index.keys):,} n-grams, s to build", "value": round(built_s, 1)},
    ]


def bench() -> list[dict[str, Any]]:
    texts = documents(NUM_DOCUMENTS, NUM_BYTES)
    batch = pa.RecordBatch.from_pydict({"text": texts, "reject": pa.nulls(len(texts), pa.string())})
    rules = Rules(RulesSpec(sets=SETS))
    rules.open()
    rules_us = best_s(lambda: rules.run(batch)) / len(texts) * 1e6
    language = Language(LanguageSpec())
    language.open()
    language_us = best_s(lambda: language.run(batch)) / len(texts) * 1e6
    peer, some = load_identifier(), texts.slice(0, 256).to_pylist()
    peer_us = best_s(lambda: [peer.classify(text) for text in some], rounds=3) / len(some) * 1e6
    return [
        *decontamination(texts),
        {"what": "rules, all four sets, us a 2 KB document", "value": round(rules_us, 1), "target": "<= 40"},
        {
            "what": "language, us a 2 KB document (peer: py3langid)",
            "value": round(language_us, 1),
            "peer": round(peer_us, 1),
            "ratio": peer_us / language_us,
            "target": "<= 25",
        },
    ]


if __name__ == "__main__":
    for row in bench():
        print(row)
