"""How sure a language model is of texts."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.generators.lm import tokens

BATCH = 16  # blocks at a time; always so many, so that a text's numbers hang on no others


class Scorer:
    """A network in memory, float32, with its tokenizer."""

    def __init__(self, network: Any, tokenizer: Any, device: str = "cpu") -> None:
        self.tokenizer, self.device = tokenizer, device
        self._network = network.to(device)

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], tokenizer: Any = None, device: str = "cpu") -> "Scorer":
        """From config.json, model.safetensors and, unless a tokenizer is given, tokenizer.json."""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            network = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
            return cls(network, tokenizer or AutoTokenizer.from_pretrained(folder), device)

    @classmethod
    def of_model(cls, model: str) -> "Scorer":
        """Of a folder, hub id, s3:// or package:. Raises UserError where there is no language model."""
        from transformers import AutoTokenizer

        from gristmill.engines import models
        from gristmill.generators.lm.family import load_network

        network = load_network(model)
        return cls(network, AutoTokenizer.from_pretrained(models.resolve(model)))

    def log_probabilities(self, texts: Sequence[str], length: int) -> list[np.ndarray]:
        """Natural, of the first `length` tokens of each text, the first of them after the start token: float32
        (tokens,) each."""
        from gristmill.generators.nets import causal

        blocks = tokens.rows_of(self.tokenizer, texts, length)
        found = causal.log_probabilities(self._network, blocks, BATCH, self.device)
        return [row[ids[1:] != tokens.IGNORED] for row, ids in zip(found, blocks)]

    def choices(self, texts: Sequence[str], length: int) -> np.ndarray:
        """The likeliest token at each place of all texts, in a line: int64 (tokens,)."""
        from gristmill.generators.nets import causal

        blocks = tokens.rows_of(self.tokenizer, texts, length)
        found = causal.choices(self._network, blocks, BATCH, self.device)
        return found[blocks[:, 1:] != tokens.IGNORED]


def perplexity(scores: Sequence[np.ndarray]) -> float:
    """exp of the mean negative log-probability over all tokens of all texts."""
    return float(np.exp(-np.concatenate(scores).astype(np.float64).mean()))


def bits_per_byte(scores: Sequence[np.ndarray], texts: Sequence[str]) -> float:
    """Comparable between tokenizers, where perplexity is not. `texts` must be scored whole."""
    num_bytes = sum(len(text.encode()) for text in texts)
    return float(-sum(s.astype(np.float64).sum() for s in scores) / np.log(2) / num_bytes)
