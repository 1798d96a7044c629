"""The cells of a CSV file as Arrow tables of texts.

Arrow's parser takes the blocks of lines about which the two parsers agree: those without quotes and single carriage
returns. Python's takes the others, and says what is wrong with a row.
"""

import io
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from gristmill.records.readers.csv_rows import BadRow, CsvRows

BLOCK_ROWS = 1024


class BadCells(ValueError):
    """A row that cannot be read; `place` is its number."""

    def __init__(self, reason: str, place: int) -> None:
        super().__init__(reason)
        self.place = place


def tables_of_cells(rows: CsvRows, num_bytes: int) -> Iterator[pa.Table]:
    """All rows in blocks of about `num_bytes`. Raises BadCells, and UserError as `CsvRows` does."""
    num_rows = 0
    while lines := rows.take_lines(num_bytes):
        table = None if rows.are_odd(lines) else _parsed(lines, rows)
        if table is None:
            rows.put_back(lines)
            break
        if table.num_rows:
            yield table
        num_rows += table.num_rows
    while block := list(islice(rows, BLOCK_ROWS)):
        for place, row in enumerate(block, num_rows):
            if isinstance(row, BadRow):
                raise BadCells(row.reason, place)
        columns = [pa.array(cells, pa.string()) for cells in zip(*block)]
        yield pa.table(columns, names=rows.names)
        num_rows += len(block)


def _parsed(lines: list[str], rows: CsvRows) -> pa.Table | None:
    """The block as Arrow reads it; None where a row has more or fewer cells."""
    from pyarrow import csv

    data = "".join(lines).encode()
    try:
        return csv.read_csv(
            io.BytesIO(data),
            csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=rows.names),
            csv.ParseOptions(delimiter=rows.delimiter, quote_char=False),
            csv.ConvertOptions(column_types=dict.fromkeys(rows.names, pa.string()), strings_can_be_null=False),
        )
    except (pa.ArrowException, ValueError, UnicodeError):
        return None
