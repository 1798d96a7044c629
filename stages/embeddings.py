"""Sentence encoders and their vectors: what a model's files say, windows over tokens, vectors of 8 bits, cosines.

stages/encoders runs a model. Vectors are rounded to 8 bits: inner products of integers are exact, in any order of the
sums.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engines import models
from gristmill.records import pins
from gristmill.records.errors import UserError
from gristmill.records.extras import require
from gristmill.records.literals import json_value
from gristmill.records.stores.opening import open_store
from gristmill.records.words import text_key

DEFAULT = "package:minilm"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
POOLING, LENGTH = "1_Pooling/config.json", "sentence_bert_config.json"
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
LEVELS = 127  # largest int8
Span = tuple[int, int]


def read(model: str, name: str) -> bytes | None:
    """A small file of a model, wherever it lies (see gristmill.engines.models); None if it does not exist."""
    place = models.where(model)
    if place == "hub":
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        hub_id, _ = models.split_revision(model)
        try:
            return Path(hf_hub_download(hub_id, name, revision=models.revision_of(model))).read_bytes()
        except EntryNotFoundError:
            return None
    if place == "bucket":
        store = open_store(model)
        return pins.read(store, name, "model") if store.exists(name) else None
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
    _tokenizer_file(model)
    dimension(model)
    pooling(model)


def _tokenizer_file(model: str) -> bytes:
    data = read(model, TOKENIZER)
    if data is None:
        raise UserError(f"model '{model}': it has no {TOKENIZER}, which holds an encoder's tokenizer")
    return data


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


def model_type(model: str) -> str:
    """Architecture of a model as its config names it, for example "bert"; "" if it does not."""
    return str(_settings(model, CONFIG).get("model_type", ""))


def max_length(model: str) -> int | None:
    """Largest number of tokens of a piece, special tokens included, or None if the model does not state it."""
    length = _settings(model, LENGTH).get("max_seq_length")
    return int(length) if length else None


def unknown_token(tokenizer: Any) -> int | None:
    """Id of the token for what is in no vocabulary; None for a tokenizer that has none."""
    model = json_value(tokenizer.to_str().encode())["model"]
    if model.get("unk_token") is not None:
        number: int | None = tokenizer.token_to_id(model["unk_token"])
        return number
    return model.get("unk_id")


def is_known(tokens: Sequence[int], unknown: int | None) -> bool:
    """Whether there are tokens, and fewer than half of them are `unknown`."""
    return 2 * sum(token == unknown for token in tokens) < len(tokens)


def reader(model: str) -> Callable[[str], bool]:
    """A function that tells whether a model knows most tokens of a text. Loads its tokenizer alone."""
    tokenizer = require("tokenizers", "lm").Tokenizer.from_buffer(_tokenizer_file(model))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    unknown = unknown_token(tokenizer)
    return lambda text: is_known(tokenizer.encode(text, add_special_tokens=False).ids, unknown)


def arbitrary_vector(text: str, dimension: int) -> np.ndarray:
    """float64 (dimension,): a direction that depends on the normal form of a text alone, nearly at right angles to all
    others."""
    values = np.frombuffer(hashlib.shake_256(text_key(text)).digest(dimension), np.uint8)
    vector: np.ndarray = values - 127.5
    return vector


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
