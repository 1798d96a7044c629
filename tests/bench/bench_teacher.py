"""Tokens per second through `produce`, beside raw offline vLLM on the same asks and engine settings.

Both sides run the small real model, one after the other, each in a process of its own, in turns. The clock starts when
the engine is up and stops when the last row is there (raw: `LLM.chat` returns; produce: the last lot is committed, all
stages done). The engine has one thread, so that on this machine, as on a GPU node, the cores that serve the cluster
are not those that the engine computes on.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.recipes import teacher

NUM_ASKS = 384
LOT_SIZE = 32
MAX_TOKENS = 96
NUM_TURNS = 2
ENGINE = {"max_num_seqs": 64, "max_model_len": 512, "dtype": "bfloat16"}

RAW = """
import json, os, sys, time
from gristmill.engines.models import resolve
from gristmill.generators.text.contract import mix
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
mill = compile_recipe(load(sys.argv[1], sys.argv[2:]))
spec = mill.generator.spec
os.environ.update(mill.generator.needs.env)
os.environ.pop("GRISTMILL_ENGINE_POLL_S", None)  # raw vLLM waits as it comes
from vllm import LLM, SamplingParams
llm = LLM(**spec._engine_of(resolve(spec.model)).arguments())
talks, sampling = [], []
for lot in range(mill.plan.num_lots):
    batch = asks(mill.plan, mill.source, lot)
    for ask, seed in zip(batch.column("ask").to_pylist(), batch.column("seed").to_pylist()):
        talks.append([{"role": "user", "content": mill.method.spec.template.format(**json.loads(ask))}])
        sampling.append(SamplingParams(seed=mix(seed, 0), **mill.generator.sampling))
started = time.perf_counter()
replies = llm.chat(talks, sampling, use_tqdm=False)
seconds = time.perf_counter() - started
print("RESULT", sum(len(r.outputs[0].token_ids) for r in replies) / seconds)
"""

THROUGH = """
import sys, time
import psutil
from gristmill.cluster.connect import connected
from gristmill.cluster.lots.loop import Job, LotLoop
from gristmill.cluster.lots.work import LotPipeline
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.output.shards import Summary
from gristmill.records.stores.opening import open_store
mill = compile_recipe(load(sys.argv[1]))
recipe = mill.recipe
pipeline = LotPipeline(mill.plan, mill.stages, mill.schema, recipe.output)
opened = None
def cpu_outside():
    # Of the driver, Ray, the workers and the actor of the engine; vLLM's own processes bear its name.
    me = psutil.Process()
    cpu = {"cpu": sum(me.cpu_times()[:2])}
    for process in me.children(recursive=True):
        try:
            if not process.name().startswith("VLLM"):
                cpu[process.pid] = sum(process.cpu_times()[:2])
        except psutil.Error:
            pass
    return cpu
def beat(state):
    global opened, before
    if opened is None and state.num_engines_open:
        before = cpu_outside()
        opened = time.perf_counter()
with connected(recipe.cluster):
    totals = Summary()
    store = open_store(sys.argv[2])
    job = Job(pipeline, mill.ask_source(store), store, recipe.cluster, recipe.limits, mill.generator, totals)
    loop = LotLoop(job, beat)
    pool = loop.pools[0]
    stop = pool.stop
    def stopped():
        print("RESULT", totals.tokens_out / (time.perf_counter() - opened))
        spent = sum(after - before.get(key, 0.0) for key, after in cpu_outside().items())
        print("CPU", 1000 * spent / totals.asks)
        stop()
    pool.stop = stopped
    loop.run()
"""


def bench() -> list[dict[str, Any]]:
    raw, through, cpu = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        recipe = teacher(Path(folder), NUM_ASKS, LOT_SIZE, ENGINE, MAX_TOKENS)
        for turn in range(NUM_TURNS):
            raw.append(result(RAW, recipe)["RESULT"])
            measured = result(THROUGH, recipe, f"{folder}/out{turn}")
            through.append(measured["RESULT"])
            cpu.append(measured["CPU"])
        free = result(RAW, recipe, "generator.batch_invariant=false")["RESULT"]
    best = max(raw)
    return [
        {
            "what": f"tokens/s through produce, SmolLM2-135M, {NUM_ASKS} asks, all stages",
            "value": " / ".join(f"{t:,.0f}" for t in through),
            "peer": f"raw vLLM offline: {' / '.join(f'{r:,.0f}' for r in raw)} (best {best:,.0f})",
            "ratio": statistics.median(t / r for t, r in zip(through, raw)),
            "target": ">= 0.97",
        },
        {
            "what": "CPU seconds outside the engine per 1,000 rows: driver, Ray, stages, index, the engine's actor",
            "value": " / ".join(f"{seconds:.1f}" for seconds in cpu),
        },
        {
            "what": "raw vLLM, batch-invariant (the default on CPU)",
            "value": f"{best:,.0f}",
            "peer": f"raw vLLM as it comes (text depends on the batch): {free:,.0f}",
            "ratio": best / free,
            "target": "",
        },
    ]


def result(code: str, *arguments: str) -> dict[str, float]:
    """The numbers that a process of its own prints after RESULT and other words in capitals."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ}, capture_output=True, text=True, check=False
    )
    words = [line.split() for line in done.stdout.splitlines()]
    numbers = {each[0]: float(each[1]) for each in words if len(each) == 2 and each[0] in ("RESULT", "CPU")}
    if "RESULT" not in numbers:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-3000:])
    return numbers
