"""What makes vLLM's CPU workers give each row the same bits in every batch. Imported inside the worker processes only.

oneDNN picks a matrix kernel by the number of rows in the batch, and in bfloat16 on AMX machines those kernels sum in
different orders: the same ask alone and among 64 others then parts ways within a sentence. Here every product runs in
blocks of exactly `BLOCK` rows, the last one padded, so one kernel does them all. A step of one row then costs as much
as one of 64, a full step is as fast as before. (Attention is kept from splitting by VLLM_CPU_ATTN_SPLIT_KV=0.)
"""

from typing import Any

BLOCK = 64


def in_blocks(product: Any) -> Any:
    """`product(handle, x, bias)` run in blocks of exactly BLOCK rows."""
    import torch

    def blocked(handle: Any, x: Any, bias: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        num_rows = rows.shape[0]
        if num_rows % BLOCK:
            rows = torch.nn.functional.pad(rows, (0, 0, 0, BLOCK - num_rows % BLOCK))
        if rows.shape[0] == BLOCK:
            answer = product(handle, rows, bias)
        else:
            answer = torch.cat([product(handle, block, bias) for block in rows.split(BLOCK)])
        return answer[:num_rows].reshape(*x.shape[:-1], answer.shape[-1])

    return blocked


def install() -> None:
    """Put the blocks in place. Raises RuntimeError when this vLLM has no such product."""
    from vllm import _custom_ops

    if not hasattr(_custom_ops, "onednn_mm"):
        raise RuntimeError("this vLLM has no oneDNN product: set batch_invariant = false")
    if not getattr(_custom_ops.onednn_mm, "in_blocks", False):
        _custom_ops.onednn_mm = in_blocks(_custom_ops.onednn_mm)
        _custom_ops.onednn_mm.in_blocks = True


class Worker:
    """Named as the engine's `worker_extension_cls`, which is how vLLM imports this module in every worker."""


install()
