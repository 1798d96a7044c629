"""Arrays in the layouts that the kernels read: Arrow strings as bytes and offsets, and memory on cache lines."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CACHE_LINE = 64  # bytes


def text_buffers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(UTF-8 bytes as uint8, int64 offsets of shape (rows + 1,)) of a string column; a null row is an empty text.

    Copies only the offsets, unless the column has nulls. Casts other string types (large, view, dictionary) first.
    """
    if column.type != pa.large_string() and column.type != pa.string():
        column = column.cast(pa.large_string())
    if column.null_count:
        column = pc.fill_null(column, "")  # bytes may lie under a null
    width: Any = np.int32 if column.type == pa.string() else np.int64
    _, places, data = column.buffers()
    if places is None or len(column) == 0:
        return np.empty(0, np.uint8), np.zeros(len(column) + 1, np.int64)
    offsets = np.frombuffer(places, width, len(column) + 1, column.offset * np.dtype(width).itemsize)
    return np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8), offsets.astype(np.int64)


def aligned_zeros(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """A zeroed array whose first byte begins a cache line."""
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(num_bytes + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + num_bytes].view(dtype).reshape(shape)
