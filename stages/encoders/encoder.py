"""Sentence embeddings of texts, the same bits in any batch.

The default encoder is all-MiniLM-L6-v2 (Wang et al. 2020, MiniLM; mean pooling as in Reimers and Gurevych 2019,
Sentence-BERT). A vector must depend on its text only. The last bits of a matrix product change with the shape of the
batch and with the number of threads. So every batch runs on one thread and has one of a few fixed shapes: a piece is
padded to the next of a few lengths, which depends on the piece alone, and a batch of that length to a fixed number of
pieces. The attention does not see padding. A probe checks that a piece has the same bits at each place of a batch; on a
machine where it has not, a batch holds one piece.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gristmill.engines import models
from gristmill.engines.needs import Needs
from gristmill.records.errors import UserError
from gristmill.records.spec import placement
from gristmill.stages import embeddings
from gristmill.stages.embeddings import Span, norms, quantise, split_evenly
from gristmill.stages.encoders.bert import BertNetwork, can_run

BLOCK_TOKENS = {"cpu": 768, "cuda": 16384}  # about this many tokens are in a batch
LENGTH_STEP = 8  # lengths of batches are multiples of it
Precision = Literal["bfloat16", "float32"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class EncoderUse:
    """Keys with which a stage runs its encoder."""

    # Numbers of the encoder, "bfloat16" or "float32". bfloat16 is about five times as fast on a CPU with AMX and moves
    # a cosine by less than 0.01; on a CPU without bfloat16 instructions both are equally fast.
    precision: Precision = "bfloat16"
    # "cpu", in the tasks that carry lots through the stages, or "cuda", in a pool of replicas with a GPU. Vectors from
    # the two differ in their last bits, so this is identity.
    device: Device = "cpu"
    # GPUs of a replica with device = "cuda"; a share such as 0.25 does for a small encoder.
    num_gpus: float = placement(1.0)

    def __post_init__(self) -> None:
        if self.num_gpus <= 0:
            raise ValueError('num_gpus must be positive; for an encoder without a GPU set device = "cpu"')

    @property
    def needs(self) -> Needs | None:
        """Resources of a replica in a pool; None: the encoder runs in the CPU task of the lot."""
        return Needs(num_gpus=self.num_gpus) if self.device == "cuda" else None


class Encoder:
    """The model in memory. Not thread-safe. `open()` makes it, and it is never pickled.

    Raises UserError for a model that is no available sentence encoder, and for `device = "cuda"` without a GPU.
    """

    def __init__(self, model: str, precision: Precision = "bfloat16", device: Device = "cpu") -> None:
        import torch
        from tokenizers import Tokenizer

        embeddings.check(model)
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                'device = "cuda", but torch finds no GPU here; give the stage num_gpus or use device = "cpu"'
            )
        folder = _folder(model)
        self._torch, self._device, self._pooling = torch, device, embeddings.pooling(model)
        net: Any = _net(folder, model, getattr(torch, precision))
        config = net.config
        is_fast = (precision, device) == ("bfloat16", "cpu") and can_run(config.model_type, config.to_dict())
        self._bert = BertNetwork(net) if is_fast else None
        self._net: Any = None if is_fast else net.to(device)
        self._tokenizer = Tokenizer.from_file(str(Path(folder) / embeddings.TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.dimension = embeddings.dimension(model)
        self._unknown = embeddings.unknown_token(self._tokenizer)
        probe = self._tokenizer.encode("a")
        first = probe.special_tokens_mask.index(0)
        last = len(probe.ids) - probe.special_tokens_mask[::-1].index(0)
        self._before, self._after = probe.ids[:first], probe.ids[last:]
        self._padding = config.pad_token_id or 0
        self._longest = embeddings.max_length(model) or config.max_position_embeddings - 2
        self.max_tokens = self._longest - len(self._before + self._after)
        self._num_pieces: dict[int, int] = {}  # by length of a batch

    def tokens(self, text: str) -> tuple[list[int], list[Span]]:
        """(token ids of the text without special tokens, the span of characters of each)."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def knows(self, tokens: Sequence[int]) -> bool:
        """Whether most of the tokens are in the model's vocabulary; the vectors of unknown ones do not tell them apart.

        False for no tokens.
        """
        return embeddings.is_known(tokens, self._unknown)

    def vectors(self, pieces: Sequence[Sequence[int]], usual: int = 0) -> np.ndarray:
        """int8 (n, dimension): the vector of each piece, given as at most `max_tokens` token ids.

        Pieces of `usual` tokens have batches of their own length, without padding.
        """
        by_length: dict[int, list[int]] = {}
        for number, piece in enumerate(pieces):
            by_length.setdefault(self._padded_length(len(piece), usual), []).append(number)
        vectors = np.empty((len(pieces), self.dimension), np.float32)
        with self._one_thread() if self._device == "cpu" else nullcontext():
            for length, numbers in by_length.items():
                size = self._batch_size(length)
                for start in range(0, len(numbers), size):
                    batch = numbers[start : start + size]
                    vectors[batch] = self._forward([pieces[i] for i in batch], length, size)[: len(batch)]
        return quantise(vectors)

    def text_vectors(self, texts: Sequence[str], size: int) -> np.ndarray:
        """int8 (n, dimension): the vector of each text, the mean of those of its parts of at most `size` tokens.

        A text that the model does not know, or an empty one, has a vector of its normal form: it equals only its like.
        """
        size = min(size, self.max_tokens)
        parts, starts = list[list[int]](), [0]
        for text in texts:
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
            parts += [ids[first:stop] for first, stop in split_evenly(len(ids), size)] if self.knows(ids) else []
            starts.append(len(parts))
        vectors = self.vectors(parts)
        unit = vectors / norms(vectors)[:, None]
        means = [
            unit[first:stop].mean(axis=0) if first < stop else embeddings.arbitrary_vector(text, self.dimension)
            for text, (first, stop) in zip(texts, pairwise(starts))
        ]
        return quantise(np.array(means, np.float32).reshape(-1, self.dimension))

    def _padded_length(self, num_tokens: int, usual: int) -> int:
        """Length of the batch for a piece, special tokens included. It depends on the piece and the spec alone."""
        length = num_tokens + len(self._before) + len(self._after)
        return (
            length if num_tokens == usual else min(-(-length // LENGTH_STEP) * LENGTH_STEP, max(length, self._longest))
        )

    def _batch_size(self, length: int) -> int:
        """Number of pieces in a batch: as many as its tokens allow, or 1 where the place of a piece changes its bits.

        The order of a sum depends on shapes and places, not on values: what holds for random tokens holds for all.
        """
        if length not in self._num_pieces:
            size = max(1, BLOCK_TOKENS[self._device] // length)
            num_tokens = length - len(self._before) - len(self._after)
            draw = np.random.default_rng(0).integers(0, self._tokenizer.get_vocab_size(), (size, num_tokens)).tolist()
            moved = self._forward(draw[1:] + draw[:1], length, size)
            is_same = np.array_equal(np.roll(moved, 1, axis=0), self._forward(draw, length, size))
            self._num_pieces[length] = size if is_same else 1
        return self._num_pieces[length]

    def _forward(self, pieces: Sequence[Sequence[int]], length: int, size: int) -> np.ndarray:
        """float32 (size, dimension): the vectors of at most `size` pieces and of the empty pieces behind them."""
        torch = self._torch
        ids = np.full((size, length), self._padding, np.int64)
        lengths = np.empty(size, np.int64)
        for place in range(size):
            tokens = [*self._before, *(pieces[place] if place < len(pieces) else ()), *self._after]
            ids[place, : len(tokens)] = tokens
            lengths[place] = len(tokens)
        is_token = np.arange(length) < lengths[:, None]
        with torch.inference_mode():
            inputs, mask = torch.from_numpy(ids).to(self._device), torch.from_numpy(is_token).to(self._device)
            if self._bert is not None:
                states = self._bert(inputs, lengths)
            else:
                states = self._net(input_ids=inputs, attention_mask=mask.long()).last_hidden_state
            states = states.float()
            if self._pooling == "mean":
                states = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            else:
                states = states[:, 0]
            vectors: np.ndarray = states.cpu().numpy()
        return vectors

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Run torch on one thread; restores the number of threads of the process."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)


def _net(folder: str, model: str, dtype: Any) -> Any:
    """The network for inference. Raises UserError for a folder that holds none."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        settings = {"dtype": dtype, "attn_implementation": "eager", "use_safetensors": True}  # never a pickle
        net = AutoModel.from_pretrained(folder, **settings).eval()
    except models.LOAD_ERRORS as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model '{model}': its weights cannot be loaded ({line})") from None
    if getattr(net, "pooler", None) is not None:
        net.pooler = None  # a layer for pre-training, whose output nobody reads
    return net


def _folder(model: str) -> str:
    """Local path of weights and tokenizer; a hub model is taken from the cache or downloaded."""
    if models.where(model) != "hub":
        return models.resolve(model)
    from huggingface_hub import snapshot_download

    hub_id, _ = models.split_revision(model)
    revision = models.revision_of(model)
    return str(snapshot_download(hub_id, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
