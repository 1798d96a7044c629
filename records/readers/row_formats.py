"""The rows of text formats: what a file holds, one item after another, and an item as JSON text or as values.

A RowFormat opens nothing. `items` takes the decompressed bytes of a file, `text` gives the JSON text of an item, whose
faults a generator rejects row by row, and `row` gives its values, or raises ValueError for a faulty one.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.records.readers.csv_rows import BadRow, CsvRows
from gristmill.records.readers.formats import Format, ReadOptions
from gristmill.records.readers.json_rows import dumped, elements_of, json_row, json_rows
from gristmill.records.readers.streams import CHUNK_BYTES, ByteStream, Utf8, lines_of
from gristmill.records.readers.web_rows import extractor, responses_of, text_of

TEXT = "text"


class RowFormat(ABC):
    """The rows of one file."""

    typed = True  # whether values have the types of the file; False: all are texts, as in CSV
    block_rows = 1  # items that are decoded at a time; more where an item is small

    def __init__(self, file_format: Format, options: ReadOptions) -> None:
        self.format, self.options = file_format, options

    @property
    def salt(self) -> str:
        """What decides the rows besides the bytes of the file."""
        return ""

    def hash(self) -> "hashlib.blake2b":
        """A hash of the content that has taken the salt."""
        return hashlib.blake2b(self.salt.encode(), digest_size=16)

    @abstractmethod
    def items(self, stream: ByteStream, where: str) -> Iterator[Any]:
        """The items of a decompressed file. Raises UserError for a damaged one."""

    @abstractmethod
    def text(self, item: Any) -> str:
        """The row as JSON text."""

    @abstractmethod
    def row(self, item: Any) -> dict[str, Any]:
        """The row as values. Raises ValueError with the reason for a faulty one."""

    def size(self, item: Any) -> int:
        """The length of an item, about."""
        return len(item)

    def rows(self, items: list[Any]) -> list[dict[str, Any]]:
        """Many rows. Raises as `row` does."""
        return [self.row(item) for item in items]


class JsonLines(RowFormat):
    """A JSON object per line; blank lines do not count."""

    @property
    def salt(self) -> str:
        return self.format.ending[1:]

    def items(self, stream: ByteStream, where: str) -> Iterator[bytes]:
        return (line for _, line in lines_of(Utf8(stream, self.options.encoding, where)))

    def text(self, item: bytes) -> str:
        return item.decode().strip()

    def row(self, item: bytes) -> dict[str, Any]:
        return json_row(item)

    def rows(self, items: list[bytes]) -> list[dict[str, Any]]:
        return json_rows(items)


class TextLines(JsonLines):
    """A row per line, in column `text`, without blank lines and without blanks at both ends."""

    def text(self, item: bytes) -> str:
        return dumped({TEXT: item.decode().strip()})

    def row(self, item: bytes) -> dict[str, Any]:
        return {TEXT: item.decode().strip()}

    def rows(self, items: list[bytes]) -> list[dict[str, Any]]:
        return [self.row(item) for item in items]


class Document(RowFormat):
    """The whole file as one row, in column `text`."""

    def items(self, stream: ByteStream, where: str) -> Iterator[str]:
        text = Utf8(stream, self.options.encoding, where)
        yield b"".join(iter(lambda: text.read(CHUNK_BYTES), b"")).decode()

    def text(self, item: str) -> str:
        return dumped({TEXT: item})

    def row(self, item: str) -> dict[str, Any]:
        return {TEXT: item}


class JsonFile(RowFormat):
    """An array of objects, objects one after another, or a single object: see `elements_of`."""

    block_rows = 64

    @property
    def salt(self) -> str:
        return "json"

    def items(self, stream: ByteStream, where: str) -> Iterator[str]:
        return elements_of(Utf8(stream, self.options.encoding, where), where)

    def text(self, item: str) -> str:
        return item

    def row(self, item: str) -> dict[str, Any]:
        return json_row(item)


class CsvFile(RowFormat):
    """The cells of CSV or TSV as texts, by the names in the first row."""

    typed = False

    @property
    def salt(self) -> str:
        return f"csv {self.options.delimiter or self.format.ending}"

    def items(self, stream: ByteStream, where: str) -> Iterator[Any]:
        rows = self.cells(stream, where)
        return (row if isinstance(row, BadRow) else dict(zip(rows.names, row)) for row in rows)

    def cells(self, stream: ByteStream, where: str) -> CsvRows:
        """The names of the columns and the rows as lists of cells."""
        text = Utf8(stream, self.options.encoding, where)
        return CsvRows(text, self.format.ending, self.options.delimiter, where)

    def text(self, item: Any) -> str:
        return json.dumps(item.cells if isinstance(item, BadRow) else item, ensure_ascii=False)

    def row(self, item: Any) -> dict[str, Any]:
        if isinstance(item, BadRow):
            raise ValueError(item.reason)
        cells: dict[str, Any] = item
        return cells


class Page(RowFormat):
    """The main text of an HTML file as one row, in column `text`; null for a page without one."""

    @property
    def salt(self) -> str:
        return f"html {extractor()} {self.options.encoding or ''}"

    def items(self, stream: ByteStream, where: str) -> Iterator[bytes | str]:
        check_installed("html", "trafilatura")
        source = Utf8(stream, self.options.encoding, where) if self.options.encoding else stream
        data = b"".join(iter(lambda: source.read(CHUNK_BYTES), b""))
        yield data.decode() if self.options.encoding else data

    def text(self, item: bytes | str) -> str:
        return dumped(self.row(item))

    def row(self, item: bytes | str) -> dict[str, Any]:
        return {TEXT: text_of(item)}


class WebArchive(RowFormat):
    """The responses of HTML in a WARC file: `url`, `date` and `text`."""

    @property
    def salt(self) -> str:
        return f"warc {extractor()}"

    def items(self, stream: ByteStream, where: str) -> Iterator[dict[str, Any]]:
        if self.options.encoding:
            raise UserError(f"{where}: encoding has no effect on WARC, whose pages state theirs; leave it out")
        check_installed("html", "trafilatura")
        return responses_of(stream, where)

    def text(self, item: dict[str, Any]) -> str:
        return dumped(self.row(item))

    def size(self, item: dict[str, Any]) -> int:
        return len(item["page"])

    def row(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"url": item["url"], "date": item["date"], TEXT: text_of(item["page"])}


def row_format(file_format: Format, options: ReadOptions) -> RowFormat:
    """The rows of a format, which is not Parquet."""
    kinds: dict[str, type[RowFormat]] = {
        **{"lines": JsonLines, "json": JsonFile, "csv": CsvFile, "html": Page, "warc": WebArchive},
        "text": Document if options.sample_by == "document" else TextLines,
    }
    return kinds[file_format.kind](file_format, options)
