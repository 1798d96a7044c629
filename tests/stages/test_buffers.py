"""Arrow strings as bytes and offsets, and arrays on cache lines."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from gristmill.stages.buffers import CACHE_LINE, aligned_zeros, text_buffers


def texts(column: pa.Array) -> list[bytes]:
    data, offsets = text_buffers(column)
    assert offsets.dtype == np.int64 and len(offsets) == len(column) + 1
    return [data[start:stop].tobytes() for start, stop in pairwise(offsets.tolist())]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_texts_of_any_string_type_and_of_slices(kind: pa.DataType) -> None:
    column = pa.array(["ünd", None, "", "mill"]).cast(kind)
    assert texts(column) == ["ünd".encode(), b"", b"", b"mill"]
    assert texts(column.slice(1, 3)) == [b"", b"", b"mill"]
    assert texts(column.slice(4)) == []


def test_bytes_under_a_null_are_not_text() -> None:
    offsets = pa.py_buffer(np.array([0, 3, 7], np.int32))
    column = pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\x02"), offsets, pa.py_buffer(b"oldmill")])
    assert column.to_pylist() == [None, "mill"] and texts(column) == [b"", b"mill"]


def test_aligned_arrays_begin_on_a_cache_line() -> None:
    for shape, kind in (((3, 7), np.int16), (5, np.uint64), (1, np.uint8)):
        array = aligned_zeros(shape, kind)
        assert array.dtype == kind and array.shape == np.zeros(shape).shape and not array.any()
        assert array.ctypes.data % CACHE_LINE == 0
