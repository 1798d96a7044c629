"""The rows of several data files as one Arrow table."""

from collections.abc import Sequence

import pyarrow as pa

from gristmill.records.ordered_map import read_ahead
from gristmill.records.readers.arrow_columns import unified_schema
from gristmill.records.readers.column_types import Misfit
from gristmill.records.readers.file_tables import FileTables


def read_files(files: Sequence[FileTables], columns: Sequence[str] | None = None) -> tuple[pa.Table, list[str]]:
    """(the rows of all files in order, the names of all their columns); `columns`: those to read, if not all.

    A column that some file lacks is null there. Holds the rows in memory. Raises UserError.
    """

    def batches(file: FileTables) -> list[pa.Table]:
        return list(file.batches(columns=columns))

    store = files[0].file.store if files else None
    tables = [table for blocks in read_ahead(store, batches, files) for table in blocks]
    names = list(dict.fromkeys(name for file in files for name in file.names))
    is_typed = all(file.has_types for file in files)
    schema = unified_schema([table.schema for table in tables])
    fitting = [_fitted(table, schema, is_typed) for table in tables]
    if all(table is not None for table in fitting):
        return pa.concat_tables([schema.empty_table(), *fitting]), names
    del tables, fitting
    while True:  # some block has values of another type than its column, so they are read again as that type
        try:
            return pa.concat_tables([table for file in files for table in file.batches(schema)]), names
        except Misfit as error:
            schema = error.widened(schema)


def _fitted(table: pa.Table, schema: pa.Schema, is_typed: bool) -> pa.Table | None:
    """The block in a schema; None where that would lose how its values were written."""
    columns = []
    for field in schema:
        column = table.column(field.name) if field.name in table.column_names else None
        if column is None or (is_typed and pa.types.is_null(column.type)):
            column = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
        elif column.type != field.type:
            if not (pa.types.is_integer(column.type) and pa.types.is_floating(field.type)):
                return None
            try:
                column = column.cast(field.type)
            except pa.ArrowException:
                return None
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)
