"""All reading of Parquet files, on the calling thread only, with proof of what was read.

Files that gristmill writes are sealed (records/sealed.py): every byte that is read is compared with its checksum. In
shards of 0.2, the checksum covers all bytes before the footer, so these are read whole once. For files of others, the
checksums of pages are compared where there are any.

By default pyarrow reads ahead on its own threads. Such a thread can release a Python buffer after the call has
returned. While the interpreter ends, that stops the thread in a destructor, and the process dies of SIGABRT although
its work is done. Shards are small, so threads bring no advantage.

A file that cannot be read raises BadParquet, whatever Arrow calls the error.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gristmill.records.errors import UserError
from gristmill.records.sealed import SEAL_KEY, Altered, is_whole, verified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq

SUMMARY_KEY = b"gristmill"  # metadata of a kept shard
HASHED_BYTES = 8 << 20


class BadParquet(UserError, OSError):
    """Bytes that cannot be read as Parquet, that were altered, or that lack a column.

    An OSError too: it is one of a file.
    """


@contextmanager
def parquet_errors(where: str = "") -> Iterator[None]:
    """Errors of Arrow in the block are raised as BadParquet; `where` names the file in its message."""
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise  # of the store
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        # ValueError: texts that are not UTF-8. MemoryError: sizes in a damaged file.
        if isinstance(error, FileNotFoundError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if where and not isinstance(error, Altered):
            reason = f"cannot be read as Parquet ({reason})"
        raise BadParquet(f"{where}: {reason}" if where else reason) from error


def open_parquet(source: Any, *, where: str = "") -> pq.ParquetFile:
    """A Parquet file of a path, a NativeFile, a buffer or a Python file; the caller closes it.

    `where` names it in messages. Raises BadParquet when it is not Parquet, and, now or while it is read, when it was
    altered after it was written.
    """
    native = _native(source)
    with parquet_errors(where):
        return _checked_file(_opened(native), native)


def open_whole(data: bytes) -> pq.ParquetFile:
    """A Parquet file in memory whose bytes are all proven now; it is then read without calls of Python.

    Raises the errors of `open_parquet`.
    """
    import pyarrow.parquet as pq

    native = _native(data)
    with parquet_errors():
        if not is_whole(data):
            return open_parquet(data)
        return _checked_file(pq.ParquetFile(native, pre_buffer=False, page_checksum_verification=True), native)


def _checked_file(file: pq.ParquetFile, native: pa.NativeFile) -> pq.ParquetFile:
    """The file. Raises ValueError for columns of one name, and Altered for a shard of 0.2 with other bytes."""
    names = file.schema_arrow.names  # ValueError: not UTF-8
    if len(set(names)) < len(names):
        raise ValueError("two of its columns have one name")
    metadata = _metadata(file)
    if SUMMARY_KEY in metadata and SEAL_KEY not in metadata:
        _check_data(native, file)
    return file


def read_metadata(source: Any, *, where: str = "") -> pq.FileMetaData:
    """The footer of a Parquet file. Raises the errors of `open_parquet`, but for the rows, which are not read."""
    with parquet_errors(where):
        return _opened(_native(source)).metadata


def read_parquet(source: Any, columns: Sequence[str] | None = None, *, where: str = "") -> pa.Table:
    """The file, or some of its columns in the order of the file. Raises the errors of `open_parquet`."""
    with open_parquet(source, where=where) as file:
        return columns_of(file, columns, where=where)


def columns_of(file: pq.ParquetFile, columns: Sequence[str] | None = None, *, where: str = "") -> pa.Table:
    """Columns of an open file, in the order of the file; None: all columns. Raises BadParquet for one it lacks.

    A column of a struct or a list is named with its path: "turns.list.element.turn".
    """
    with parquet_errors(where):
        names = None if columns is None else list(columns)
        present = set(file.schema_arrow.names) if names else ()  # its schema is read anew at each look
        for name in names or ():
            if name.partition(".")[0] not in present and name not in present:
                raise ValueError(f"it has no column '{name}'")
        return _checked(file.read(columns=names, use_threads=False))


def check_types(table: pa.Table, types: Mapping[str, Any], where: str) -> None:
    """Raise BadParquet unless the table has these columns, with these types and without nulls."""
    for name, kind in types.items():
        if name not in table.column_names:
            raise BadParquet(f"{where}: it has no column '{name}'")
        column = table.column(name)
        if column.type != kind or column.null_count:
            nulls = " with nulls" if column.null_count else ""
            raise BadParquet(f"{where}: column '{name}' is {column.type}{nulls}, not {kind}")


def batches_of(file: pq.ParquetFile, *, where: str = "") -> Iterator[pa.RecordBatch]:
    """The rows of an open file, about 65,536 at a time. Raises BadParquet."""
    batches = file.iter_batches(use_threads=False)
    while True:
        with parquet_errors(where):
            batch = next(batches, None)
            if batch is None:
                return
            _checked(batch)
        yield batch


def _checked(rows: Any) -> Any:
    """The table or batch. Raises ArrowInvalid for offsets beyond the data, and for texts that are not UTF-8."""
    rows.validate(full=True)
    return rows


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
    try:
        expected = json.loads(_metadata(file)[SUMMARY_KEY])["data_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
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
