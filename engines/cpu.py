"""What makes vLLM's CPU workers give each row the same bits in every batch. Imported inside the worker processes only.

The matrix kernels under vLLM are picked by the number of rows in the batch (oneDNN at many sizes, the packed kernels
for small weights above four rows), and in bfloat16 they sum in different orders: the same ask alone and among 64
others parts ways within a sentence. Here every product runs in blocks of exactly BLOCK rows, the last one padded, so
one kernel does them all. A step of one row then costs as much as one of BLOCK; a full step is as fast as before.
Attention is kept from splitting by VLLM_CPU_ATTN_SPLIT_KV=0.
"""

from collections.abc import Callable
from typing import Any

BLOCK = 64


def in_blocks(product: Callable[[Any], Any], x: Any) -> Any:
    """`product(x)` over the rows of `x`, run in blocks of exactly BLOCK rows."""
    import torch

    rows = x.reshape(-1, x.shape[-1])
    num_rows = rows.shape[0]
    if num_rows % BLOCK:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, BLOCK - num_rows % BLOCK))
    if rows.shape[0] == BLOCK:
        answer = product(rows)
    else:
        answer = torch.cat([product(block) for block in rows.split(BLOCK)])
    return answer[:num_rows].reshape(*x.shape[:-1], answer.shape[-1])


def install() -> None:
    """Put the blocks in place. Raises RuntimeError when this vLLM has other products."""
    from vllm import _custom_ops

    onednn = getattr(_custom_ops, "onednn_mm", None)
    packed = getattr(_custom_ops, "weight_packed_linear_cpu", None)
    if onednn is None or packed is None:
        raise RuntimeError("this vLLM's CPU products are not known: set batch_invariant = false")
    _custom_ops.onednn_mm = lambda handle, x, bias: in_blocks(lambda rows: onednn(handle, rows, bias), x)
    _custom_ops.weight_packed_linear_cpu = lambda x, weight, size, bias: in_blocks(
        lambda rows: packed(rows, weight, size, bias), x
    )


class Worker:
    """Named as the engine's `worker_extension_cls`, which is how vLLM imports this module in every worker."""


install()
