"""Tokens per second of a method of several calls through `produce`, beside raw vLLM given all the calls at once.

Raw vLLM knows every prompt beforehand, those too that a method makes of an earlier answer: it is the limit of what any
order of calls can reach. Both sides make the same calls with the same seeds; the method is run again on the answers
that the shards hold to find the prompts. Clock and machine as in bench_teacher.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.bench_teacher import ENGINE, THROUGH, result
from tests.bench.recipes import teacher

NUM_ASKS = 256
LOT_SIZE = 32
MAX_TOKENS = 160
NUM_TURNS = 2
METHOD = {"kind": "constitutional", "prompt": "Say in one or two sentences what {text} is.", "rounds": 1}

RAW = """
import asyncio, glob, json, os, sys, time
import pyarrow.parquet as pq
from gristmill.generators.text.contract import Ask, Session
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.engines.models import resolve
mill = compile_recipe(load(sys.argv[1]))
spec = mill.generator.spec
os.environ.update(mill.generator.needs.env)
os.environ.pop("GRISTMILL_ENGINE_POLL_S", None)  # raw vLLM waits as it comes
calls = []
class Replay:
    synchronous = True
    def __init__(self, turns):
        self.turns = iter(turns)
    async def chat(self, prompt, sampling, seed, form=None):
        turn = next(self.turns, None)
        if turn is None:
            raise AskRefused("over")
        talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        calls.append((talk, dict(sampling), seed))
        return Reply(turn["text"], "stop", turn["tokens_in"], turn["tokens_out"])
turns = {}
for path in glob.glob(sys.argv[2] + "/*/part-*.parquet"):
    for row in pq.read_table(path, columns=["id", "turns"]).to_pylist():
        turns[row["id"]] = row["turns"]
async def replay(row):
    session = Session(Replay(turns[row["id"]]), row["seed"], mill.generator.sampling)
    try:
        await mill.method.run(Ask(row["id"], row["seed"], json.loads(row["ask"])), session)
    except AskRefused:
        pass
for lot in range(mill.plan.num_lots):
    for row in asks(mill.plan, mill.source, lot).to_pylist():
        asyncio.run(replay(row))
from vllm import LLM, SamplingParams
llm = LLM(**spec._engine_of(resolve(spec.model)).arguments())
started = time.perf_counter()
sampling = [SamplingParams(seed=seed, **settings) for _, settings, seed in calls]
replies = llm.chat([talk for talk, _, _ in calls], sampling, use_tqdm=False)
seconds = time.perf_counter() - started
made = sum(len(r.outputs[0].token_ids) for r in replies)
wanted = sum(turn["tokens_out"] for told in turns.values() for turn in told)
assert abs(made - wanted) <= 0.01 * wanted, (made, wanted)  # the same calls
print("RESULT", made / seconds)
"""


def bench() -> list[dict[str, Any]]:
    raw, through = [], []
    with tempfile.TemporaryDirectory() as folder:
        recipe = teacher(Path(folder), NUM_ASKS, LOT_SIZE, ENGINE, MAX_TOKENS, method=METHOD)
        for turn in range(NUM_TURNS):
            through.append(result(THROUGH, recipe, f"{folder}/out{turn}")["RESULT"])
            raw.append(result(RAW, recipe, f"{folder}/out{turn}")["RESULT"])
    return [
        {
            "what": f"tokens/s through produce, constitutional (3 calls a row), {NUM_ASKS} asks, all stages",
            "value": " / ".join(f"{t:,.0f}" for t in through),
            "peer": f"raw vLLM offline, the same calls all at once: {' / '.join(f'{r:,.0f}' for r in raw)}",
            "ratio": statistics.median(t / r for t, r in zip(through, raw)),
            "target": ">= 0.96",
        }
    ]
