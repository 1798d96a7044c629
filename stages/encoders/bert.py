"""BERT on the CPU in bfloat16: products by oneDNN, the rest of a layer by numba kernels.

bfloat16 has the exponent of float32 and 8 bits of precision. AMX multiplies it about eight times as fast as float32;
the sums are float32. With fast products the rest counts: torch's attention alone takes as long as they do, hence the
kernels (stages/kernels/encoder.py). A CPU without bfloat16 instructions multiplies the same numbers in float32: only
the order of its sums differs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

# Model types with BERT's layers: softmax(scale * Q K') V, no rotations; each norm behind a sum.
TYPES = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})


def can_run(model_type: str, config: dict[str, Any]) -> bool:
    """Whether `BertNetwork` computes what this model does."""
    positions = config.get("position_embedding_type") or "absolute"
    is_plain = positions == "absolute" and not config.get("is_decoder")
    return model_type in TYPES and is_plain and config.get("hidden_act", "gelu") == "gelu"


def has_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 on this CPU."""
    import torch

    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class BertNetwork:
    """The layers of a transformers model `net` in bfloat16."""

    def __init__(self, net: Any) -> None:
        from gristmill.stages.kernels import encoder

        self._kernels, self._multiply = encoder, _multiplication(has_bfloat16())
        self._embeddings = net.embeddings
        self._config = net.config
        self._space: _Space | None = None  # of the last shape: callers go shape by shape
        self._layers = [self._layer(layer) for layer in net.encoder.layer]

    def __call__(self, ids: Any, lengths: np.ndarray) -> Any:
        """bfloat16 (pieces, length, d): the states of int64 (pieces, length) token ids, `lengths` a piece.

        The next call overwrites them.
        """
        states = self._embeddings(input_ids=ids)
        num_pieces, length, width = states.shape
        space = self._space
        if space is None or space.shape != (num_pieces, length):
            space = self._space = _Space(num_pieces, length, self._config)
        space.lengths = lengths
        space.rows.copy_(states.reshape(-1, width))
        for layer in self._layers:
            layer(space)
        return space.rows.view(states.shape)

    def _layer(self, layer: Any) -> Callable[["_Space"], None]:
        """A layer as a function that replaces the rows of a space."""
        import torch

        kernels, multiply, num_heads = self._kernels, self._multiply, self._config.num_attention_heads
        parts = [layer.attention.self.query, layer.attention.self.key, layer.attention.self.value]
        joined = _matrix(torch.cat([part.weight for part in parts]))
        joined_bias = _floats(torch.cat([part.bias for part in parts])).reshape(3, num_heads, -1)
        scale = joined_bias.shape[2] ** -0.5
        linear = [layer.attention.output.dense, layer.intermediate.dense, layer.output.dense]
        (first, wide, last), (first_bias, wide_bias, last_bias) = (
            [_matrix(part.weight) for part in linear],
            [_floats(part.bias) for part in linear],
        )
        first_norm, last_norm = _norm(layer.attention.output.LayerNorm), _norm(layer.output.LayerNorm)

        def forward(s: _Space) -> None:
            multiply(s.rows, joined, s.joined)
            kernels.split_heads(s.joined_bits, joined_bias, s.head_bits)
            multiply(s.query, s.key, s.scores)
            kernels.attention_weights(s.score_bits, s.lengths, scale, s.weight_bits, s.totals)
            multiply(s.weights, s.value, s.values)
            kernels.merge_heads(s.value_bits, s.totals, s.merged_bits)
            multiply(s.merged, first, s.states)
            kernels.add_norm(s.state_bits, first_bias, s.row_bits, *first_norm, s.state_bits)
            multiply(s.states, wide, s.inner)
            kernels.gelu(s.inner_bits, wide_bias)
            multiply(s.inner, last, s.rows)
            kernels.add_norm(s.row_bits, last_bias, s.state_bits, *last_norm, s.row_bits)

        return forward


class _Space:
    """Memory for batches of one shape, as tensors for products and as views of the same bytes for kernels."""

    lengths: np.ndarray  # int64 (pieces,): tokens of each piece of the current batch

    def __init__(self, num_pieces: int, length: int, config: Any) -> None:
        import torch

        self.shape = num_pieces, length
        num_heads, size = config.num_attention_heads, config.hidden_size
        num_rows, num_matrices, width = num_pieces * length, num_pieces * num_heads, size // num_heads

        def space(*shape: int) -> tuple[Any, np.ndarray]:
            tensor = torch.empty(shape, dtype=torch.bfloat16)
            return tensor, tensor.view(torch.int16).numpy().view(np.uint16)

        self.rows, self.row_bits = space(num_rows, size)
        self.states, self.state_bits = space(num_rows, size)
        self.inner, self.inner_bits = space(num_rows, config.intermediate_size)
        self.joined, joined_bits = space(num_rows, 3 * size)
        heads, head_bits = space(3, num_matrices, length, width)
        self.query, key, self.value = heads.unbind(0)
        self.key = key.transpose(1, 2)
        self.scores, score_bits = space(num_matrices, length, length)
        self.weights, weight_bits = space(num_matrices, length, length)
        self.values, value_bits = space(num_matrices, length, width)
        self.merged, merged_bits = space(num_rows, size)
        self.totals = np.empty((num_pieces, num_heads, length), np.float32)
        by_piece = (num_pieces, num_heads, length)
        self.joined_bits = joined_bits.reshape(num_pieces, length, 3, num_heads, width)
        self.head_bits = head_bits.reshape(3, *by_piece, width)
        self.score_bits = score_bits.reshape(*by_piece, length)
        self.weight_bits = weight_bits.reshape(*by_piece, length)
        self.value_bits = value_bits.reshape(*by_piece, width)
        self.merged_bits = merged_bits.reshape(num_pieces, length, num_heads, width)


def _multiplication(is_native: bool) -> Callable[[Any, Any, Any], None]:
    """A function that writes the product of bfloat16 matrices, or of stacks of them, to its third argument."""
    import torch

    def native(a: Any, b: Any, result: Any) -> None:
        torch.matmul(a, b, out=result)

    def emulated(a: Any, b: Any, result: Any) -> None:
        result.copy_(torch.matmul(a.float(), b.float()))

    return native if is_native else emulated


def _matrix(weight: Any) -> Any:
    """The weight (outputs, inputs) of a linear layer as (inputs, outputs)."""
    return weight.detach().t().contiguous()


def _floats(vector: Any) -> np.ndarray:
    floats: np.ndarray = vector.detach().float().numpy()
    return floats


def _norm(layer: Any) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """(weight, bias, eps) of a layer norm."""
    return _floats(layer.weight), _floats(layer.bias), np.float32(layer.eps)
