"""Exact inner products of int8 vectors, in matrices that are used again and again.

PyTorch multiplies int8 matrices by oneDNN. With the instructions of VNNI or AMX all sums are exact in int32. Without
them oneDNN adds pairs in int16, which overflows. So `Int8Products` is used only after a probe with the largest numbers;
`FloatProducts` gives the same integers everywhere, because floating point holds every partial sum.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

PROBE_ROWS, PROBE_NUMBERS = 48, (24, 64, 128, 384)
LARGEST = 128**2  # of a product of two int8
# Inner products (n, m) of contiguous, writable int8 (n, d) and (m, d), in a matrix that the next call writes over.
Products = Callable[[np.ndarray, np.ndarray], np.ndarray]


class FloatProducts:
    """Products by numpy's BLAS, in float32 if that holds every product of vectors of `dimension` numbers, or float64.

    The vectors may be parts of such vectors: sums of their products are exact too.
    """

    def __init__(self, dimension: int) -> None:
        self._kind: Any = np.float32 if dimension * LARGEST <= 2**24 else np.float64
        self._room = np.empty(0, self._kind)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if len(self._room) < len(a) * len(b):
            self._room = np.empty(len(a) * len(b), self._kind)
        products = self._room[: len(a) * len(b)].reshape(len(a), len(b))
        return np.matmul(a.astype(self._kind), b.astype(self._kind).T, out=products)


class Int8Products:
    """Products by the processor's instructions for int8, int32. Use it only where `is_int8_exact`."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._room = torch.empty(0, dtype=torch.int32)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if len(self._room) < len(a) * len(b):
            self._room = self._torch.empty(len(a) * len(b), dtype=self._torch.int32)
        out = self._room[: len(a) * len(b)].view(len(a), len(b))
        self._torch._int_mm(self._torch.from_numpy(a), self._torch.from_numpy(b).T, out=out)
        products: np.ndarray = out.numpy()
        return products


@cache
def is_int8_exact() -> bool:
    """Whether this processor has instructions for int8 and `Int8Products` are exact with them. Imports torch."""
    import torch

    if not (torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()):
        return False
    draw = np.random.default_rng(0)
    return all(_is_exact(draw, size) for size in PROBE_NUMBERS)


def _is_exact(draw: Any, size: int) -> bool:
    """Whether both products of vectors of `size` numbers are equal, for extreme and for random numbers."""
    a, b = (draw.integers(-128, 128, (PROBE_ROWS, size)).astype(np.int8) for _ in range(2))
    for rows in (a, b):
        rows[:4] = np.array([[127], [-128], [-127], [1]])
    return bool(np.array_equal(Int8Products()(a, b), FloatProducts(size)(a, b)))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, which is all that an index actor may use; restores the number of the process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
