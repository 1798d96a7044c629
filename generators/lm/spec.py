"""Settings of `[model] kind = "causal_lm"`."""

from dataclasses import dataclass
from typing import Literal

MAX_LORA = 512
HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)  # sizes of heads that vLLM serves, on CPUs too


@dataclass(frozen=True)
class LmSpec:
    """Settings of `causal_lm`, which continues `base`, or trains a Llama-shaped model from scratch.

    From scratch, the defaults give a model of 1.3 million weights, which a core trains in a minute.
    """

    base: str | None = None  # model to continue from: a folder, hub id, s3:// or package:smollm2; default: from scratch
    lora: int = 0  # rank of adapters in all linear layers; 0: all weights are trained
    lora_alpha: int | None = None  # scale of the adapters; default: twice the rank
    length: int = 64  # tokens of a training block, without the start token
    # blocks that run across documents, or a block for each row, cut at `length`
    packing: Literal["documents", "rows"] = "documents"
    epochs: float = 1.0  # passes over all blocks; may be a fraction
    batch: int = 16  # blocks in a step
    # highest learning rate; rises over the first tenth of the steps, then falls to a tenth along a cosine
    lr: float = 1e-3
    weight_decay: float = 0.01  # weight decay of AdamW
    clip: float = 1.0  # largest 2-norm of a step's gradient
    hidden: int = 128  # width of the layers, from scratch only
    layers: int = 4  # number of layers, from scratch only
    heads: int = 4  # attention heads of a layer, from scratch only
    vocabulary: int = 2048  # tokens of the byte-level BPE that is learnt from the rows, from scratch only

    def __post_init__(self) -> None:
        if min(self.length, self.batch, self.hidden, self.layers, self.heads) < 1:
            raise ValueError("length, batch, hidden, layers and heads must be at least 1")
        if self.length < 4:
            raise ValueError("length must be at least 4 tokens")
        if self.epochs <= 0 or self.lr <= 0 or self.clip <= 0 or self.weight_decay < 0:
            raise ValueError("epochs, lr and clip must be above 0, and weight_decay must not be negative")
        if not 0 <= self.lora <= MAX_LORA:
            raise ValueError(f"lora must lie in 0..{MAX_LORA}")
        if self.lora and self.base is None:
            raise ValueError("lora needs a model to adapt: set base")
        if self.base is None and self.hidden / self.heads not in HEADS:
            raise ValueError(f"hidden / heads is the size of a head; engines serve {', '.join(map(str, HEADS))}")
        if self.base is None and self.vocabulary < 512:
            raise ValueError("vocabulary must be at least 512: 256 of it are bytes")
