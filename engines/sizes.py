"""What an engine has made of its arguments, stated or by default."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineSizes:
    """What an open engine holds at once."""

    max_num_seqs: int
    max_num_batched_tokens: int
    enable_prefix_caching: bool
    max_model_len: int  # tokens
    kv_cache_tokens: int  # that the KV cache holds
    gpu_memory_utilization: float


def sizes_of(engine: Any) -> EngineSizes:
    """The sizes of an open `gristmill.engines.vllm.Engine`."""
    config = engine._engine.vllm_config
    cache, scheduler = config.cache_config, config.scheduler_config
    return EngineSizes(
        int(scheduler.max_num_seqs),
        int(scheduler.max_num_batched_tokens),
        bool(cache.enable_prefix_caching),
        int(config.model_config.max_model_len),
        int(cache.num_gpu_blocks or 0) * int(cache.block_size or 0),
        float(cache.gpu_memory_utilization),
    )
