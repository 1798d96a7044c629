"""How sure a language model is of texts."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from generators.lm import tokens

BATCH = 16  # blocks at a time; always so many, so that a text's numbers hang on no others


class Scorer:
    """A model in memory, from its files as transformers reads them (config.json, model.safetensors)."""

    def __init__(self, files: Mapping[str, bytes], tokenizer: Any, length: int, device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM

        self.tokenizer, self.length, self.device = tokenizer, length, device
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            self._network = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").to(device)

    def log_probabilities(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Natural, of the first `length` tokens of each text, the first of them after the start token: float32
        (tokens,) each."""
        from generators.nets import causal

        blocks = tokens.rows_of(self.tokenizer, texts, self.length)
        found = causal.log_probabilities(self._network, blocks, BATCH, self.device)
        return [row[ids[1:] != tokens.IGNORED] for row, ids in zip(found, blocks)]


def perplexity(scores: Sequence[np.ndarray]) -> float:
    """exp of the mean negative log-probability over all tokens of all texts."""
    return float(np.exp(-np.concatenate(scores).astype(np.float64).mean()))


def bits_per_byte(scores: Sequence[np.ndarray], texts: Sequence[str]) -> float:
    """Comparable between tokenizers, where perplexity is not. `texts` must be scored whole."""
    num_bytes = sum(len(text.encode()) for text in texts)
    return float(-sum(s.astype(np.float64).sum() for s in scores) / np.log(2) / num_bytes)
