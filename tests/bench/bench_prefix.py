"""Asks about long documents in the order that Gristmill gives them, beside the order of the source.

Each document of about 1,500 tokens has several questions. In the order of the source, every document is asked once
before any is asked again, as `source.samples` does without `source.together`. The cache of the engine holds a third of
the documents. One engine answers both orders, after a few asks that warm it up.
"""

import asyncio
import time
from typing import Any

import pyarrow as pa

from gristmill.generators.teacher import Teacher
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
from tests.bench.corpus import documents
from tests.engine import MODEL

NUM_DOCUMENTS, NUM_CHARS, NUM_SAMPLES = 24, 6_000, 4
CACHE_TOKENS, BLOCK = 8 * 1_536, 128
ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "block_size": BLOCK,
    "num_gpu_blocks_override": CACHE_TOKENS // BLOCK,
}


def recipe(together: bool) -> dict[str, Any]:
    return {
        "name": "prefix",
        "lot_size": NUM_DOCUMENTS * NUM_SAMPLES // 4,
        "source": {
            "items": documents(NUM_DOCUMENTS, NUM_CHARS).to_pylist(),
            "samples": NUM_SAMPLES,
            "together": together,
        },
        "generator": {"kind": "teacher", **MODEL, "engine": ENGINE, "sampling": {"max_tokens": 12}},
        "method": {"kind": "prompt", "template": "{text}\n\nWhat is this text about?"},
    }


async def answer(teacher: Teacher, lots: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], float]:
    """The rows of all lots, which the engine has at once, and the seconds that they took."""
    started = time.perf_counter()
    rows = await asyncio.gather(*map(teacher.make, lots))
    return rows, time.perf_counter() - started


def bench() -> list[dict[str, Any]]:
    seconds: dict[bool, float] = {}
    with asyncio.Runner() as loop:
        for together in (False, True):
            compiled = compile_recipe(load(recipe(together)))
            teacher = compiled.generator
            assert isinstance(teacher, Teacher)
            lots = [asks(compiled.plan, compiled.source, lot) for lot in range(4)]
            teacher.open()
            try:
                loop.run(answer(teacher, [lots[0].slice(0, 1)]))
                _, seconds[together] = loop.run(answer(teacher, lots))
            finally:
                teacher.close()
    return [
        {
            "what": f"{NUM_SAMPLES} asks about each of {NUM_DOCUMENTS} documents of 1,500 tokens, `source.together`",
            "value": f"{seconds[True]:.0f} s",
            "peer": f"every document once before any again: {seconds[False]:.0f} s",
            "ratio": seconds[False] / seconds[True],
            "target": ">= 1.3",
        }
    ]
