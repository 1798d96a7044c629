"""All reading of Parquet files, on the calling thread only.

By default pyarrow reads ahead on its own threads. Such a thread can release a Python buffer after the call has
returned. While the interpreter ends, that stops the thread in a destructor, and the process dies of SIGABRT although
its work is done. Shards are small, so threads bring no advantage.

A file that cannot be read raises BadParquet, whatever Arrow calls the error.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gristmill.records.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq


class BadParquet(UserError, OSError):
    """Bytes that cannot be read as Parquet, or that lack a column. An OSError too: it is one of a file."""


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
        raise BadParquet(f"{where}: cannot be read as Parquet ({reason})" if where else reason) from error


def open_parquet(source: Any, *, check_pages: bool = False, where: str = "") -> pq.ParquetFile:
    """A Parquet file of a path, a NativeFile or a buffer; the caller closes it. `where` names it in messages.

    Raises BadParquet when it is not Parquet; with `check_pages` reading raises it when a page has a wrong checksum.
    """
    import pyarrow.parquet as pq

    with parquet_errors(where):
        file = pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=check_pages)
        names = file.schema_arrow.names  # ValueError: not UTF-8
        if len(set(names)) < len(names):
            raise ValueError("two of its columns have one name")
        return file


def read_parquet(
    source: Any, columns: Sequence[str] | None = None, *, check_pages: bool = False, where: str = ""
) -> pa.Table:
    """The file, or some of its columns in the order of the file. Raises the errors of `open_parquet`."""
    with open_parquet(source, check_pages=check_pages, where=where) as file:
        return columns_of(file, columns, where=where)


def columns_of(file: pq.ParquetFile, columns: Sequence[str] | None = None, *, where: str = "") -> pa.Table:
    """Columns of an open file, in the order of the file; None: all columns. Raises BadParquet for one it lacks.

    A column of a struct or a list is named with its path: "turns.list.element.turn".
    """
    with parquet_errors(where):
        names = None if columns is None else list(columns)
        for name in names or ():
            if name.partition(".")[0] not in file.schema_arrow.names and name not in file.schema_arrow.names:
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
