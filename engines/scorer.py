"""Log-probabilities of texts under a causal language model, and the two measures made of them.

A text is read behind the tokenizer's begin-of-text token, or behind its end-of-text token where it has no other. So
each of the text's tokens is scored. A tokenizer with neither token leaves the first token of each text unscored.
Tokens that a tokenizer adds by itself are left out. The log-probability is natural and is computed in float32.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engines import models
from gristmill.records.errors import UserError

MAX_TOKENS = 512  # of a text that are scored by default
MIN_WIDTH = 64  # tokens; rows are padded to this width, or to the next power of two
MAX_ROWS, BATCH_TOKENS = 16, 1024  # of a batch; its shape follows from the width alone


class Scorer:
    """A causal language model in float32 with its tokenizer, loaded on first use.

    The scores of a text do not depend on the other texts: each batch has a shape that follows from the text's own
    length, and a short batch is filled up.
    """

    def __init__(self, load: Callable[[], tuple[Any, Any]], device: str = "cpu") -> None:
        """`load` returns (network, tokenizer) as transformers has them."""
        self._load, self.device = load, device

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], tokenizer: Any = None, device: str = "cpu") -> "Scorer":
        """From config.json, model.safetensors and, unless a tokenizer is given, tokenizer.json."""

        def load() -> tuple[Any, Any]:
            with tempfile.TemporaryDirectory() as folder:
                for name, data in files.items():
                    (Path(folder) / name).write_bytes(data)
                return load_network(folder), tokenizer or load_tokenizer(folder)

        return cls(load, device)

    @classmethod
    def from_model(cls, model: str, device: str = "cpu") -> "Scorer":
        """From a folder, a hub id, s3:// or package:. Raises UserError at once when the model cannot be had."""
        models.check(model)
        return cls(lambda: (load_network(model), load_tokenizer(model)), device)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        network, tokenizer = self._load()
        del self._load  # it may hold the model's files
        return network.to(self.device).eval(), tokenizer

    @property
    def tokenizer(self) -> Any:
        return self._loaded[1]

    def log_probabilities(self, texts: Sequence[str], length: int | None = None) -> list[np.ndarray]:
        """Natural log-probabilities of the first `length` tokens of each text: float64 (tokens,) each.

        Without `length`, the first MAX_TOKENS tokens, or fewer where the model's context is shorter. A text without
        a token to score has an empty array.
        """
        scores = [np.empty(0, np.float64) for _ in texts]
        for place, logits, ids in self._read(texts, length):
            rows = logits.float().log_softmax(-1).gather(1, ids[:, None])[:, 0]
            scores[place] = np.minimum(rows.cpu().numpy().astype(np.float64), 0.0)
        return scores

    def choices(self, texts: Sequence[str], length: int | None = None) -> np.ndarray:
        """The likeliest token in place of each scored token, of all texts in order: int64 (tokens,)."""
        tokens = {place: logits.argmax(-1).cpu().numpy() for place, logits, _ in self._read(texts, length)}
        return np.concatenate([np.empty(0, np.int64), *(tokens[place] for place in sorted(tokens))])

    def _read(self, texts: Sequence[str], length: int | None) -> Iterator[tuple[int, Any, Any]]:
        """(place of the text, logits (tokens, vocabulary), ids (tokens,)) of each text with a token to score."""
        import torch

        network, tokenizer = self._loaded
        if length is None:
            length = min(MAX_TOKENS, getattr(network.config, "max_position_embeddings", None) or MAX_TOKENS)
        by_width: dict[int, list[tuple[int, list[int]]]] = {}
        for place, ids in enumerate(_token_ids(tokenizer, texts, length)):
            if len(ids) > 1:
                by_width.setdefault(_width(len(ids) - 1, length), []).append((place, ids))
        for width, rows in by_width.items():
            num_rows = max(1, min(MAX_ROWS, BATCH_TOKENS // width))
            for first in range(0, len(rows), num_rows):
                batch = rows[first : first + num_rows]
                inputs = torch.zeros(num_rows, width, dtype=torch.int64)
                for row, (_, ids) in enumerate(batch):
                    inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
                with torch.inference_mode():
                    logits = network(input_ids=inputs.to(self.device)).logits
                for row, (place, ids) in enumerate(batch):
                    yield place, logits[row, : len(ids) - 1], torch.tensor(ids[1:], device=self.device)


def _token_ids(tokenizer: Any, texts: Sequence[str], length: int) -> list[list[int]]:
    """Of each text the token that it is read behind and the `length` tokens that are scored."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    before = [] if start is None else [start]
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return [[*before, *ids][: length + 1] for ids in encoded]


def _width(num_tokens: int, length: int) -> int:
    """The width of the rows that a text of `num_tokens` is read in."""
    width = MIN_WIDTH
    while width < num_tokens:
        width *= 2
    return min(width, length)


def load_network(model: str) -> Any:
    """The causal language model that `model` names, in float32. Raises UserError where there is none."""
    from transformers import AutoModelForCausalLM

    return _loaded(AutoModelForCausalLM, model, dtype="float32", use_safetensors=True)  # never a pickle


def load_tokenizer(model: str) -> Any:
    """The tokenizer that `model` names. Raises UserError where there is none."""
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, model)


def _loaded(auto_class: Any, model: str, **settings: Any) -> Any:
    from transformers.utils import logging

    models.check(model)
    logging.disable_progress_bar()
    revision = models.split_revision(model)[1] if models.where(model) == "hub" else None
    if revision:
        settings["revision"] = revision
    try:
        return auto_class.from_pretrained(models.resolve(model), **settings)
    except models.LOAD_ERRORS as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model '{model}': no causal language model there ({line})") from None


def perplexity(scores: Sequence[np.ndarray]) -> float:
    """exp of the mean negative log-probability over all tokens of all texts."""
    return float(np.exp(-np.concatenate(scores).mean()))


def bits_per_byte(scores: Sequence[np.ndarray], texts: Sequence[str]) -> float:
    """Bits per UTF-8 byte of texts that were scored whole. Comparable between tokenizers; perplexity is not."""
    num_bytes = sum(len(text.encode()) for text in texts)
    return float(-sum(s.sum() for s in scores) / np.log(2) / num_bytes)
