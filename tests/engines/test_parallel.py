"""Engines on several devices: sizes, identity of the answers, and what a CPU engine cannot do."""

from pathlib import Path

import pytest

from gristmill.engines.models import resolve
from gristmill.engines.vllm import Engine
from gristmill.records.errors import UserError
from tests.engine import SharedEngine

ASKS = ("Name a river.", "Write about bridges and the wind, at length, please.", "Glass")


def even_model(folder: Path) -> str:
    """A tiny model with random weights and an even number of heads, which can be split in two."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(resolve("package:smollm2"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, max_position_embeddings=512, **heads
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return str(folder)


@pytest.mark.nightly
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_two_devices_are_one_engine_that_is_batch_invariant(tmp_path: Path, shared_engine: SharedEngine) -> None:
    model = even_model(tmp_path)

    async def answers(size: int) -> list[str]:
        engine = Engine(model, {"max_model_len": 256, "tensor_parallel_size": size}, kv_cache_gb=1, threads=1)
        try:
            engine.open()
            facts = await engine.facts()
            assert facts["tensor_parallel_size"] == size and facts["batch_invariant"] is True
            return [(await engine.chat(ask, {"max_tokens": 8}, seed)).text for seed, ask in enumerate(ASKS)]
        finally:
            engine.close()

    for size in (1, 2):
        assert all(shared_engine.loop.run(answers(size)))


def test_an_executor_that_the_cpu_lacks_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match="needs GPUs"):
        Engine("m", {"distributed_executor_backend": "ray"}).check()
