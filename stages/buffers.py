"""Arrow string columns as the plain arrays that the kernels read."""

import numpy as np
import pyarrow as pa


def text_buffers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(UTF-8 bytes as uint8, int64 offsets of shape (rows + 1,)) of a string column; a null row is an empty one.

    Nothing is copied but the offsets. Other string types (large, view, dictionary) are cast first.
    """
    if column.type != pa.large_string():
        column = column if column.type == pa.string() else column.cast(pa.large_string())
    width = np.int32 if column.type == pa.string() else np.int64
    _, places, data = column.buffers()
    if places is None or len(column) == 0:
        return np.empty(0, np.uint8), np.zeros(len(column) + 1, np.int64)
    offsets = np.frombuffer(places, width, len(column) + 1, column.offset * np.dtype(width).itemsize)
    return np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8), offsets.astype(np.int64)
