"""Sentence embeddings of texts: vectors of their meaning, the same bits in any batch.

The default encoder is all-MiniLM-L6-v2 (Wang et al. 2020, MiniLM; mean pooling as in Reimers and Gurevych 2019,
Sentence-BERT). A vector must depend on its text only. Matrix products over a batch do not ensure that: their kernels,
and so their last bits, change with the shape and the number of threads. So each piece of text is computed alone, on one
thread, without padding. Several are computed together only in one shape, and only if a probe shows the same bits.
Vectors are then rounded to 8 bits: inner products of integers are exact, in any order of the sums.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engines import models
from gristmill.records.errors import UserError
from gristmill.records.literals import json_value

DEFAULT = "package:minilm"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
POOLING, LENGTH = "1_Pooling/config.json", "sentence_bert_config.json"
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
BATCH_SIZE = 8  # pieces of one length that are computed together
LEVELS = 127  # largest int8
Span = tuple[int, int]


def read(model: str, name: str) -> bytes | None:
    """A small file of a model, wherever it lies (see gristmill.engines.models); None if it does not exist."""
    place = models.where(model)
    if place == "hub":
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        hub_id, revision = models.split_revision(model)
        try:
            return Path(hf_hub_download(hub_id, name, revision=revision)).read_bytes()
        except EntryNotFoundError:
            return None
    if place == "bucket":
        from gristmill.records.stores.opening import open_store

        return open_store(model).read_if_there(name)
    path = Path(models.resolve(model)) / name
    return path.read_bytes() if path.is_file() else None


def _settings(model: str, name: str) -> dict[str, Any]:
    """The settings in a JSON file of a model, empty where it has none. Raises UserError for anything else."""
    try:
        settings = json_value(read(model, name) or b"{}")
    except ValueError as error:
        raise UserError(f"model '{model}': {name} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"model '{model}': {name} is no table of settings")
    return settings


def check(model: str) -> None:
    """Preflight: raise UserError if `model` is not an available sentence encoder. Loads no weights."""
    models.check(model)
    if read(model, TOKENIZER) is None:
        raise UserError(f"model '{model}': it has no {TOKENIZER}, which holds an encoder's tokenizer")
    dimension(model)
    pooling(model)


def digest(model: str) -> str:
    """Digest of what its vectors depend on: the model and its pooling."""
    return f"{models.digest(model)}:{pooling(model)}"


def dimension(model: str) -> int:
    """Number of values in a vector. Raises UserError for a model without hidden_size."""
    size = _settings(model, CONFIG).get("hidden_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"model '{model}': its {CONFIG} has no hidden_size, so it is not a sentence encoder")
    return size


def pooling(model: str) -> str:
    """Pooling of a model, "mean" (the default) or "first". Raises UserError for another."""
    config = _settings(model, POOLING) or {"pooling_mode_mean_tokens": True}
    ways = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(ways) != 1 or ways[0] not in POOLINGS:
        raise UserError(
            f"model '{model}': {' and '.join(ways) or 'no pooling'} is not supported; "
            "use an encoder with mean or cls pooling"
        )
    return POOLINGS[ways[0]]


def _net(auto_model: Any, folder: str, model: str, dtype: Any) -> Any:
    """The network for inference. Raises UserError for a folder that holds none."""
    try:
        settings = {"dtype": dtype, "attn_implementation": "eager", "use_safetensors": True}  # never a pickle
        return auto_model.from_pretrained(folder, **settings).eval()
    except models.LOAD_ERRORS as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model '{model}': its weights cannot be loaded ({line})") from None


class Encoder:
    """The model in memory, on the CPU in float32. Not thread-safe. `open()` makes it, and it is never pickled."""

    def __init__(self, model: str) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModel
        from transformers.utils import logging

        check(model)
        logging.disable_progress_bar()
        folder = _folder(model)
        self._torch, self._pooling = torch, pooling(model)
        self._net: Any = _net(AutoModel, folder, model, torch.float32)
        self._tokenizer = Tokenizer.from_file(str(Path(folder) / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.dimension = dimension(model)
        probe = self._tokenizer.encode("a")
        first = probe.special_tokens_mask.index(0)
        last = len(probe.ids) - probe.special_tokens_mask[::-1].index(0)
        self._before, self._after = probe.ids[:first], probe.ids[last:]
        length = _settings(model, LENGTH).get("max_seq_length")
        self.max_tokens = int(length or self._net.config.max_position_embeddings - 2) - len(self._before + self._after)
        self._can_batch: dict[int, bool] = {}  # by number of tokens: whether a batch gives the bits of single pieces

    def tokens(self, text: str) -> tuple[list[int], list[Span]]:
        """(token ids of the text without special tokens, the span of characters of each)."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def vectors(self, pieces: Sequence[Sequence[int]], usual: int = 0) -> np.ndarray:
        """int8 (n, dimension): the vector of each piece, given as at most `max_tokens` token ids.

        Pieces of the length `usual` are computed in batches if a probe shows that this changes no bit.
        """
        vectors = np.empty((len(pieces), self.dimension), np.float32)
        single_batch = list(range(len(pieces)))
        with self._one_thread():
            if usual:
                same_length = [i for i in single_batch if len(pieces[i]) == usual]
                if len(same_length) >= BATCH_SIZE and self._is_batchable(usual):
                    same_length = same_length[: len(same_length) - len(same_length) % BATCH_SIZE]
                    for first in range(0, len(same_length), BATCH_SIZE):
                        group = same_length[first : first + BATCH_SIZE]
                        vectors[group] = self._forward([pieces[i] for i in group])
                    single_batch = sorted(set(single_batch) - set(same_length))
            for i in single_batch:
                vectors[i] = self._forward([pieces[i]])[0]
        return quantise(vectors)

    def text_vectors(self, texts: Sequence[str], size: int) -> np.ndarray:
        """int8 (n, dimension): the vector of each text, the mean of those of its parts of at most `size` tokens."""
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for number, text in enumerate(texts):
            ids, _ = self.tokens(text)
            parts = self.vectors(
                [ids[first:stop] for first, stop in split_evenly(len(ids), min(size, self.max_tokens))]
            )
            vectors[number] = np.mean(parts / norms(parts)[:, None], axis=0)
        return quantise(vectors)

    def _forward(self, pieces: Sequence[Sequence[int]]) -> np.ndarray:
        """float32 (n, dimension), for pieces of one length."""
        ids = self._torch.tensor([[*self._before, *piece, *self._after] for piece in pieces])
        with self._torch.inference_mode():
            states = self._net(input_ids=ids, attention_mask=self._torch.ones_like(ids)).last_hidden_state
            vectors: np.ndarray = (states.mean(1) if self._pooling == "mean" else states[:, 0]).numpy()
        return vectors

    def _is_batchable(self, length: int) -> bool:
        """Whether BATCH_SIZE pieces of `length` tokens give the same bits together and alone.

        The order of a sum depends on shapes, not on values: a result for random tokens holds for all tokens.
        """
        if length not in self._can_batch:
            draw = np.random.default_rng(0).integers(0, self._tokenizer.get_vocab_size(), (BATCH_SIZE, length)).tolist()
            single_batch = np.concatenate([self._forward([piece]) for piece in draw])
            self._can_batch[length] = bool(np.array_equal(single_batch, self._forward(draw)))
        return self._can_batch[length]

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Run torch on one thread; restores the number of threads of the process."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)


def _folder(model: str) -> str:
    """Local path of weights and tokenizer; a hub model is taken from the cache or downloaded."""
    if models.where(model) != "hub":
        return models.resolve(model)
    from huggingface_hub import snapshot_download

    hub_id, revision = models.split_revision(model)
    return str(snapshot_download(hub_id, revision=revision, allow_patterns=["*.json", "*.safetensors"]))


def windows(length: int, size: int, step: int) -> list[Span]:
    """(first, stop) of overlapping windows over `length` tokens.

    All are full and the last ends at the end; a short text has one.
    """
    if length <= size:
        return [(0, length)]
    return [(first, first + size) for first in [*range(0, length - size, step), length - size]]


def split_evenly(length: int, size: int) -> list[Span]:
    """(first, stop) of parts of about equal length, at most `size`, that cover `length` tokens; at least one part."""
    num = max(1, -(-length // size))
    edges = [length * i // num for i in range(num + 1)]
    return list(pairwise(edges))


def quantise(vectors: np.ndarray) -> np.ndarray:
    """int8 (n, d) in the direction of float (n, d), the largest number of each row 127.

    Moves a cosine by about 0.001.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (LEVELS / largest)).astype(np.int8)


def norms(vectors: np.ndarray) -> np.ndarray:
    """float64 (n,): the norms of int8 (n, d). They are not 0, because `quantise` makes one number of a row 127."""
    return np.sqrt((vectors.astype(np.int64) ** 2).sum(axis=1, dtype=np.int64).astype(np.float64))


def dots(a: np.ndarray, b: np.ndarray) -> Any:
    """Exact inner products (n, m) of int8 (n, d) and (m, d): every partial sum is an integer that the type can hold."""
    kind: Any = np.float32 if a.shape[1] * LEVELS**2 < 2**24 else np.float64
    return a.astype(kind) @ b.astype(kind).T


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 (n, m) in [-1, 1]: the same bits in any batch and on any machine."""
    result: np.ndarray = np.clip(dots(a, b) / (norms(a)[:, None] * norms(b)[None, :]), -1.0, 1.0)
    return result
