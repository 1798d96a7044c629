"""All reading of Parquet files, on the calling thread only, with proof of what was read.

Files that gristmill writes are sealed (records/sealed.py): every byte that is read is compared with its checksum. In
shards of 0.2, the checksum covers all bytes before the footer, so these are read whole once. For files of others, the
checksums of pages are compared where there are any.

By default pyarrow reads ahead on its own threads. Such a thread can release a Python buffer after the call has
returned. While the interpreter ends, that stops the thread in a destructor, and the process dies of SIGABRT although
its work is done. Shards are small, so threads bring no advantage.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gristmill.records.sealed import SEAL_KEY, Altered, verified

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq

SUMMARY_KEY = b"gristmill"  # metadata of a kept shard
HASHED_BYTES = 8 << 20


def open_parquet(source: Any) -> pq.ParquetFile:
    """A Parquet file of a path, a NativeFile, a buffer or a Python file; the caller closes it.

    Raises pyarrow.ArrowInvalid or OSError when it is not Parquet, and Altered (an OSError), now or while it is read,
    when it was altered after it was written.
    """
    native = _native(source)
    file = _opened(native)
    if SUMMARY_KEY in _metadata(file) and SEAL_KEY not in _metadata(file):
        _check_data(native, file)
    return file


def read_metadata(source: Any) -> pq.FileMetaData:
    """The footer of a Parquet file. Raises the errors of `open_parquet`, but for the rows, which are not read."""
    return _opened(_native(source)).metadata


def read_parquet(source: Any, columns: Sequence[str] | None = None) -> pa.Table:
    """The file, or some of its columns in the order of the file. Raises the errors of `open_parquet`."""
    with open_parquet(source) as file:
        return columns_of(file, columns)


def columns_of(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of an open file, in the order of the file; None: all columns."""
    return file.read(columns=None if columns is None else list(columns), use_threads=False)


def batches_of(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """The rows of an open file, about 65,536 at a time."""
    return file.iter_batches(use_threads=False)


def _native(source: Any) -> pa.NativeFile:
    import pyarrow as pa

    if isinstance(source, pa.NativeFile):
        return source
    if isinstance(source, (bytes, pa.Buffer)):
        return pa.BufferReader(source)
    return pa.PythonFile(source, "r") if hasattr(source, "read") else pa.OSFile(str(source), "rb")


def _opened(source: pa.NativeFile) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    sealed = verified(source)
    file = pq.ParquetFile(sealed or source, pre_buffer=False, page_checksum_verification=True)
    if sealed is None and SEAL_KEY in _metadata(file):
        raise Altered("altered after it was written (its checksums cannot be read)")
    return file


def _metadata(file: pq.ParquetFile) -> dict[bytes, bytes]:
    return file.metadata.metadata or {}


def _check_data(source: pa.NativeFile, file: pq.ParquetFile) -> None:
    """Compare all bytes before the footer with the checksum in the footer, if there is one."""
    import hashlib

    try:
        expected = json.loads(_metadata(file)[SUMMARY_KEY])["data_sha256"]
    except (ValueError, KeyError, TypeError):
        return  # its reader needs the summary, and says what is wrong
    num_left = source.size() - 8 - int.from_bytes(source.read_at(4, source.size() - 8), "little")
    digest, at = hashlib.sha256(), 0
    while num_left > 0:
        data = source.read_at(min(HASHED_BYTES, num_left), at)
        digest.update(data)
        at, num_left = at + len(data), num_left - len(data)
        if not data:
            break
    if digest.hexdigest() != expected:
        raise Altered("altered after it was written (its bytes do not match the checksum in its footer)")
