"""CSV as rows of texts: the delimiter, the names in the first row, and the cells as they are written."""

import codecs
import csv
import logging
import sys
from collections import Counter, deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from gristmill.records.errors import UserError
from gristmill.records.readers.formats import TAB_ENDING
from gristmill.records.readers.streams import CHUNK_BYTES, ByteStream

logger = logging.getLogger(__name__)

DELIMITERS = ",;\t|"
NUM_SNIFFED = 50  # lines that the delimiter is told from
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
Cells = list[str]

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a document in a cell may have any length


class BadRow:
    """A row that cannot be read: why, and what it holds."""

    def __init__(self, reason: str, cells: Cells) -> None:
        self.reason, self.cells = reason, cells


class CsvRows:
    """The names of the columns of a CSV file, and its rows.

    A first column without a name, as an index has it, is called column_1. Raises UserError for two columns of a
    name, and for a first row that cannot be read.
    """

    def __init__(self, stream: ByteStream, ending: str, delimiter: str | None, where: str) -> None:
        self._where, self._rest = where, _lines(stream)
        self._next = deque(islice(self._rest, NUM_SNIFFED))  # lines to read before the rest
        self.delimiter = delimiter or ("\t" if ending == TAB_ENDING else _sniffed(list(self._next), where))
        self._num_taken = 0  # lines that were read by another parser
        self._reader = csv.reader(iter(self._line, None), delimiter=self.delimiter, strict=True)
        header = next(iter(self), list[str]())
        if isinstance(header, BadRow):
            raise UserError(f"{where}: its first row, which names the columns, cannot be read ({header.reason})")
        self.names = [name.strip() or f"column_{number}" for number, name in enumerate(header, 1)]
        for name, count in Counter(self.names).items():
            if count > 1:
                raise UserError(f"{where}: two columns are called '{name}'; rename one of them in its first row")

    def _line(self) -> str | None:
        return self._next.popleft() if self._next else next(self._rest, None)

    def take_lines(self, num_bytes: int) -> list[str]:
        """The next lines, about `num_bytes` of them, for another parser; none at the end."""
        lines, size = list[str](), 0
        while size < num_bytes and (line := self._line()) is not None:
            lines.append(line)
            size += len(line)
        self._num_taken += len(lines)
        return lines

    def put_back(self, lines: list[str]) -> None:
        """Lines that were taken last are read as rows after all."""
        self._next.extendleft(reversed(lines))
        self._num_taken -= len(lines)

    @staticmethod
    def are_odd(lines: list[str]) -> bool:
        """Whether parsers differ about the lines: quotes, and carriage returns within a line."""
        text = "".join(lines)
        return '"' in text or "\0" in text or text.count("\r") != text.count("\r\n")

    def __iter__(self) -> Iterator[Cells | BadRow]:
        """The rows after those that were taken; raises UserError for a quote that is never closed."""
        names: list[str] | None = getattr(self, "names", None)  # none before the first row
        while True:
            begin = self._num_taken + self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise UserError(f"{self._where}: the quote that line {begin:,} opens is never closed") from None
                yield BadRow(f"line {begin:,}: {error}", [])
                continue
            if not cells:
                continue  # a blank line
            if names is not None and len(cells) != len(names):
                yield BadRow(f"line {begin:,} has {len(cells):,} cells, the first row has {len(names):,}", cells)
            else:
                yield cells


def _lines(stream: ByteStream) -> Iterator[str]:
    """The lines of a stream of UTF-8 with their ends; linear in their lengths."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    pieces: list[str] = []
    while chunk := stream.read(CHUNK_BYTES):
        *complete, rest = decode(chunk).split("\n")
        for line in complete:
            pieces.append(line)
            yield "".join(pieces) + "\n"
            pieces = []
        pieces.append(rest)
    if last := "".join(pieces):
        yield last


def _sniffed(lines: list[str], where: str) -> str:
    """The delimiter that parts the first lines into the same number of cells, the most cells first; else a comma."""
    best, most = ",", 1
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        widths = {len(row) for row in (rows[:-1] if len(lines) >= NUM_SNIFFED else rows)}  # the last may be cut
        if rows and len(widths) == 1 and len(rows[0]) > most:
            best, most = delimiter, len(rows[0])
    if best != ",":
        _tell(where, best)
    return best


@lru_cache(maxsize=1000)  # a file is opened more than once
def _tell(where: str, delimiter: str) -> None:
    logger.info(
        f"{where}: its delimiter is a {NAMES[delimiter]} (where the recipe has a key delimiter, it sets another)"
    )
