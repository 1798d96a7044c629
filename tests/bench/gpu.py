"""The check of a GPU node, at most ten minutes: `scripts/gpu_check.sh [MODEL...]`.

For each model: tokens per second and GPU through `produce` beside raw vLLM on the same asks, beside the figure that
datatrove publishes for it on one H100 (vLLM 0.15, its README), and the probe of batch invariance.
"""

import asyncio
import platform
import sys
import tempfile
from pathlib import Path

from gristmill.engines.installed import on_gpu
from gristmill.engines.models import resolve
from gristmill.engines.vllm import Engine
from tests.bench.bench_teacher import RAW, THROUGH, result
from tests.bench.recipes import teacher

MODELS = ["package:smollm2"]
PUBLISHED = {
    "package:smollm2": 45_540,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 9_220,
    "Qwen/Qwen3-0.6B": 14_069,
    "Qwen/Qwen3-4B": 8_086,
    "meta-llama/Llama-3.1-8B-Instruct": 6_443,
    "openai/gpt-oss-20b": 14_671,
}
NUM_ASKS, LOT_SIZE, MAX_TOKENS = (8_192, 256, 256) if on_gpu() else (64, 16, 32)
ENGINE = {"max_model_len": 1024}


async def facts(model: str) -> dict:
    """What an engine in batch-invariant mode says of itself; a GPU older than Hopper has no such mode."""
    engine = Engine(resolve(model), dict(ENGINE), batch_invariant=True)
    try:
        engine.open()
        return await engine.facts()
    except Exception as error:  # noqa: BLE001 - whatever vLLM raises is the finding, and the next model is checked
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    finally:
        engine.close()


def main(models: list[str]) -> None:
    from vllm.platforms import current_platform

    print(f"{current_platform.get_device_name()}, vLLM on {platform.machine()}, {NUM_ASKS} asks of {MAX_TOKENS} tokens")
    print("| model | produce, tokens/s/GPU | raw vLLM | ratio | published for one H100 | batch_invariant = true |")
    print("|---|---|---|---|---|---|", flush=True)
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            generator = {"kind": "teacher", "model": model, "engine": ENGINE}
            generator["sampling"] = {"max_tokens": MAX_TOKENS, "ignore_eos": True}
            recipe = teacher(Path(folder), NUM_ASKS, LOT_SIZE, ENGINE, MAX_TOKENS, generator=generator)
            raw = result(RAW, recipe)["RESULT"]
            through = result(THROUGH, recipe, f"{folder}/out")["RESULT"]
        probe = asyncio.run(facts(model))
        published = f"{PUBLISHED[model]:,}" if model in PUBLISHED else ""
        print(f"| {model} | {through:,.0f} | {raw:,.0f} | {through / raw:.3f} | {published} | {probe} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or MODELS)
