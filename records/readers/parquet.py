"""The one door to Parquet files that are read: on the thread that asks, with no reader left behind.

pyarrow reads ahead on its own threads unless told not to, and such a thread may let go of a Python buffer after the
call has returned. When that happens while the interpreter ends, the thread is stopped inside a destructor and the
process dies of SIGABRT although its work was done. Shards are small; nothing is gained by threads here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq


def open_parquet(source: Any, *, check_pages: bool = False) -> pq.ParquetFile:
    """The file over a path, a NativeFile or a buffer; the caller closes it.

    Raises pyarrow.ArrowInvalid or OSError when it is not Parquet, and with `check_pages` when a page is read whose
    checksum does not fit.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=check_pages)


def read_parquet(source: Any, columns: Sequence[str] | None = None, *, check_pages: bool = False) -> pa.Table:
    """The whole file, or some of its columns in the order of the file. Raises as `open_parquet` does."""
    with open_parquet(source, check_pages=check_pages) as file:
        return columns_of(file, columns)


def columns_of(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of an open file, in the order of the file; all of them when None."""
    return file.read(columns=None if columns is None else list(columns), use_threads=False)


def batches_of(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """The rows of an open file, some 65,536 at a time."""
    return file.iter_batches(use_threads=False)
