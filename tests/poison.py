"""Named as a vLLM logits processor by a test: a prompt with a certain word ends the engine's worker process."""

import os
from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor

WORD = " volcano"


class Killer(LogitsProcessor):
    """A real crash of the real engine, by one ask."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        from transformers import AutoTokenizer

        ids = AutoTokenizer.from_pretrained(vllm_config.model_config.tokenizer).encode(WORD, add_special_tokens=False)
        self.sought = " ".join(map(str, ids))

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: Any) -> None:
        for _, _, prompt, _ in batch_update.added if batch_update else ():
            if f" {self.sought} " in f" {' '.join(map(str, prompt or []))} ":
                os._exit(13)

    def apply(self, logits: Any) -> Any:
        return logits
