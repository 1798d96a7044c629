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
TYPES = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})


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
    """The layers of a transformers model `net` in bfloat16, laid out for blocks of about `num_tokens` tokens."""

    def __init__(self, net: Any, num_tokens: int) -> None:
        import torch

        from gristmill.stages.kernels import encoder

        self._torch, self._kernels, self._is_native = torch, encoder, has_bfloat16()
        self._embeddings = net.embeddings
        self._project = getattr(net, "embeddings_project", None)
        self._num_heads = net.config.num_attention_heads
        self._head_width = net.config.hidden_size // self._num_heads
        self._spaces: dict[tuple[int, int], _Space] = {}
        self._layers = [self._layer(layer, num_tokens) for layer in net.encoder.layer]

    def __call__(self, ids: Any, lengths: np.ndarray) -> Any:
        """bfloat16 (pieces, length, d): the states of int64 (pieces, length) token ids, `lengths` a piece."""
        states = self._embeddings(input_ids=ids)
        if self._project is not None:
            states = self._project(states)
        shape = states.shape
        space = self._spaces.get(shape[:2])
        if space is None:
            space = self._spaces[shape[:2]] = _Space(shape[0], shape[1], self._num_heads, self._head_width)
        space.lengths = lengths
        rows = states.reshape(-1, shape[2]).contiguous()
        for layer in self._layers:
            rows = layer(rows, space)
        return rows.view(shape)

    def _layer(self, layer: Any, num_tokens: int) -> Callable[[Any, "_Space"], Any]:
        """A layer as a function of its rows and the space for its attention."""
        torch, kernels, width = self._torch, self._kernels, self._head_width
        attention = layer.attention.self
        parts = (attention.query, attention.key, attention.value)
        joined = self._product(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]), num_tokens)
        first = self._linear(layer.attention.output.dense, num_tokens)
        wide = self._linear(layer.intermediate.dense, num_tokens, has_gelu=True)
        last = self._linear(layer.output.dense, num_tokens)
        first_norm, last_norm = _norm(layer.attention.output.LayerNorm), _norm(layer.output.LayerNorm)

        def forward(rows: Any, space: _Space) -> Any:
            query, key, value = space.split(joined(rows))
            self._batch_product(query, key.transpose(1, 2), space.scores)
            kernels.attention_weights(space.score_bits, space.lengths, width**-0.5, space.weight_bits, space.totals)
            self._batch_product(space.weights, value, space.values)
            kernels.merge_heads(space.value_bits, space.totals, space.merged_bits)
            states = first(space.merged)
            kernels.add_norm(bits(states), bits(rows), *first_norm, bits(states))
            result = last(wide(states))
            kernels.add_norm(bits(result), bits(states), *last_norm, bits(result))
            return result

        return forward

    def _linear(self, layer: Any, num_tokens: int, has_gelu: bool = False) -> Callable[[Any], Any]:
        return self._product(layer.weight, layer.bias, num_tokens, has_gelu)

    def _product(self, weight: Any, bias: Any, num_tokens: int, has_gelu: bool = False) -> Callable[[Any], Any]:
        """rows W' + b, or its GELU, as a function of bfloat16 rows (n, i)."""
        torch, functional = self._torch, self._torch.nn.functional
        weight, bias = weight.detach(), bias.detach()
        if self._is_native:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, num_tokens)
            post: tuple[str, list[Any], str] = ("gelu", [], "none") if has_gelu else ("none", [], "")
            return lambda rows: torch.ops.mkldnn._linear_pointwise(rows, packed, bias, *post)
        wide_weight, wide_bias = weight.float(), bias.float()

        def forward(rows: Any) -> Any:
            result = functional.linear(rows.float(), wide_weight, wide_bias)
            return (functional.gelu(result) if has_gelu else result).bfloat16()

        return forward

    def _batch_product(self, a: Any, b: Any, result: Any) -> None:
        """Write the products of (n, i, j) and (n, j, k) to bfloat16 `result` (n, i, k)."""
        if self._is_native:
            self._torch.bmm(a, b, out=result)
        else:
            result.copy_(self._torch.bmm(a.float(), b.float()))


class _Space:
    """Memory for the attention of batches of one shape, as tensors and as the views that the kernels take."""

    lengths: np.ndarray  # int64 (pieces,): tokens of each piece of the current batch

    def __init__(self, num_pieces: int, length: int, num_heads: int, width: int) -> None:
        import torch

        def space(*shape: int) -> Any:
            return torch.empty(shape, dtype=torch.bfloat16)

        num_matrices = num_pieces * num_heads
        self._heads = space(3, num_pieces, num_heads, length, width)
        self._parts = self._heads.view(3, num_matrices, length, width).unbind(0)
        self.scores, self.weights = space(num_matrices, length, length), space(num_matrices, length, length)
        self.values, self.merged = space(num_matrices, length, width), space(num_pieces * length, num_heads * width)
        self.totals = np.empty((num_pieces, num_heads, length), np.float32)
        by_piece = (num_pieces, num_heads, length)
        self.score_bits = bits(self.scores).reshape(*by_piece, length)
        self.weight_bits = bits(self.weights).reshape(*by_piece, length)
        self.value_bits = bits(self.values).reshape(*by_piece, width)
        self.merged_bits = bits(self.merged).reshape(num_pieces, length, num_heads, width)

    def split(self, rows: Any) -> tuple[Any, Any, Any]:
        """Queries, keys and values (pieces * heads, length, width) of (pieces * length, 3 * heads * width)."""
        _, num_pieces, num_heads, length, width = self._heads.shape
        self._heads.copy_(rows.view(num_pieces, length, 3, num_heads, width).permute(2, 0, 3, 1, 4))
        query, key, value = self._parts
        return query, key, value


def _norm(layer: Any) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """(weight, bias, eps) of a layer norm."""
    return layer.weight.detach().float().numpy(), layer.bias.detach().float().numpy(), np.float32(layer.eps)


def bits(tensor: Any) -> np.ndarray:
    """uint16 view of a contiguous bfloat16 tensor, which shares its memory."""
    import torch

    view: np.ndarray = tensor.view(torch.int16).numpy().view(np.uint16)
    return view
