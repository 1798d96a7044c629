"""Batch-invariant matrix products for the CPU workers of vLLM. Only the worker processes import this module.

vLLM chooses its matrix kernels by the number of rows in the batch: oneDNN at many sizes, packed kernels for small
weights above four rows. In bfloat16 they sum in different orders, so the same ask alone and among 64 others diverges
within a sentence. Here every product runs in blocks of exactly BLOCK rows, the last block padded, so that one kernel
computes all of them. A step of one row then costs as much as a step of BLOCK rows; a full step is as fast as before.
VLLM_CPU_ATTN_SPLIT_KV=0 keeps attention from splitting.
"""

from collections.abc import Callable
from typing import Any

BLOCK = 64


def in_blocks(product: Callable[[Any], Any], x: Any) -> Any:
    """`product(x)`, computed in blocks of exactly BLOCK rows of `x`."""
    import torch

    rows = x.reshape(-1, x.shape[-1])
    num_rows = rows.shape[0]
    if num_rows % BLOCK:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, BLOCK - num_rows % BLOCK))
    if rows.shape[0] == BLOCK:
        result = product(rows)
    else:
        result = torch.cat([product(block) for block in rows.split(BLOCK)])
    return result[:num_rows].reshape(*x.shape[:-1], result.shape[-1])


def install() -> None:
    """Replace the products of vLLM. Raises RuntimeError when this vLLM has other products."""
    from vllm import _custom_ops

    onednn = getattr(_custom_ops, "onednn_mm", None)
    packed = getattr(_custom_ops, "weight_packed_linear_cpu", None)
    if onednn is None or packed is None:
        raise RuntimeError("this version of vLLM has unknown CPU products: set batch_invariant = false")
    _custom_ops.onednn_mm = lambda handle, x, bias: in_blocks(lambda rows: onednn(handle, rows, bias), x)
    _custom_ops.weight_packed_linear_cpu = lambda x, weight, size, bias: in_blocks(
        lambda rows: packed(rows, weight, size, bias), x
    )


class Worker:
    """The engine's `worker_extension_cls`: vLLM imports this module in every worker because of it."""


install()
