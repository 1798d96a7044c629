"""Final answers and personal data on one core: rows a second by text alone and by algebra, and MB of text for `pii`."""

import time
from typing import Any

import pyarrow as pa

from gristmill.stages.filters.pii import Pii, PiiSpec
from gristmill.stages.verify.answer import Answer, AnswerSpec
from tests.bench.bench_verify import best_s
from tests.bench.corpus import documents

SCHEMA = pa.schema([("answer", pa.string()), ("reference", pa.string()), ("reject", pa.string())])
WORK = "There are 12 eggs in 3 nests, so each nest has 4 of them. " * 8
NUM_PLAIN, NUM_ALGEBRA, NUM_TEXTS, NUM_BYTES = 20_000, 100, 1024, 2048


def batch_of(pairs: list[tuple[str, str]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"answer": a, "reference": r, "reject": None} for a, r in pairs], SCHEMA)


def rate(stage: Answer, pairs: list[tuple[str, str]]) -> float:
    """Rows a second. Every row is another one: the second look at the same is cheaper."""
    batch = batch_of(pairs)
    started = time.perf_counter()
    told = stage.run(batch)
    taken_s = time.perf_counter() - started
    if set(told.column("answer_verdict").to_pylist()) - {"right", "wrong"}:
        raise RuntimeError("not all could be told")
    return len(pairs) / taken_s


def bench() -> list[dict[str, Any]]:
    stage = Answer(AnswerSpec())
    try:
        plain = [
            (f"{WORK}The answer is {n:,}.", f"{WORK}\n#### {n + n % 2}") for n in range(10_000, 10_000 + NUM_PLAIN)
        ]
        roots = [(rf"\boxed{{{n}\sqrt{{2}}}}", rf"\sqrt{{{2 * n * n}}}") for n in range(2, NUM_ALGEBRA)]
        sums = [(rf"{n}x^2+\frac{{x}}{{{n + 1}}}", rf"\frac{{1}}{{{n + 1}}}x + {n}x^2") for n in range(2, NUM_ALGEBRA)]
        stage.run(batch_of([("x+1", "1+x")]))  # starts the process that algebra runs in
        by_text, by_roots, by_sums = (rate(stage, pairs) for pairs in (plain, roots, sums))
    finally:
        stage.close()
    texts = documents(NUM_TEXTS, NUM_BYTES)
    rows = pa.RecordBatch.from_pydict({"text": texts, "reject": pa.nulls(len(texts), pa.string())})
    pii = Pii(PiiSpec())
    pii_s = best_s(lambda: pii.run(rows), rounds=3)
    return [
        {"what": "answer, numbers in worked solutions of 500 characters, rows/s", "value": round(by_text)},
        {"what": "answer, by algebra: roots, rows/s", "value": round(by_roots)},
        {"what": "answer, by algebra: polynomials, rows/s", "value": round(by_sums)},
        {"what": "pii, all kinds, MB/s of text", "value": round(NUM_TEXTS * NUM_BYTES / pii_s / 1e6, 1)},
    ]
