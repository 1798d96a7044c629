"""All reading of Parquet files, on the calling thread only.

By default pyarrow reads ahead on its own threads. Such a thread can release a Python buffer after the call has
returned. While the interpreter ends, that stops the thread in a destructor, and the process dies of SIGABRT although
its work is done. Shards are small, so threads bring no advantage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq


def open_parquet(source: Any, *, check_pages: bool = False) -> pq.ParquetFile:
    """A Parquet file of a path, a NativeFile or a buffer; the caller closes it.

    Raises pyarrow.ArrowInvalid or OSError when it is not Parquet, and with `check_pages` when a page has a wrong
    checksum.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=check_pages)


def read_parquet(source: Any, columns: Sequence[str] | None = None, *, check_pages: bool = False) -> pa.Table:
    """The file, or some of its columns in the order of the file. Raises the errors of `open_parquet`."""
    with open_parquet(source, check_pages=check_pages) as file:
        return columns_of(file, columns)


def columns_of(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of an open file, in the order of the file; None: all columns."""
    return file.read(columns=None if columns is None else list(columns), use_threads=False)


def batches_of(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """The rows of an open file, about 65,536 at a time."""
    return file.iter_batches(use_threads=False)
