"""Pages as rows: the main text of HTML files, and of the responses in WARC files."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.extras import require
from gristmill.records.readers.streams import ByteStream

HTML_TYPES = ("text/html", "application/xhtml+xml")
READ_BYTES = 1 << 20
RECORD_END = b"\r\n\r\n"


def extractor() -> str:
    """Name and version of the extractor, which decides the texts. Raises UserError where it is missing."""
    require("trafilatura", "html")
    return f"trafilatura {version('trafilatura')}"


def text_of(page: str | bytes) -> str | None:
    """The main text of a page, without menus, advertisements and comments; None for a page without one.

    Bytes are decoded as the page says, else as they look.
    """
    require("trafilatura", "html")
    import trafilatura

    text: str | None = trafilatura.extract(page, include_comments=False) if page.strip() else None
    return text


def responses_of(stream: ByteStream, where: str) -> Iterator[dict[str, Any]]:
    """`url`, `date` (ISO 8601) and the bytes of `page` of each response of HTML in a WARC file, without compression.

    Raises UserError for a file that is no WARC, and for one that ends within a record.
    """
    require("fastwarc", "warc")
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    source: Any = _Tail(stream)
    num_records = 0
    cut = UserError(f"{where}: damaged or cut short (it ends within a record); fetch or write it again")
    try:
        records = ArchiveIterator(source, record_types=WarcRecordType.any_type, parse_http=False, fsspec_args=False)
        for record in records:
            num_records += 1
            if record.record_type != WarcRecordType.response or not record.is_http:
                continue
            length, date = record.content_length, record.record_date
            record.parse_http(auto_decode="all")
            page = record.reader.read()
            if length and record.http_headers is None:
                raise cut
            if (record.http_content_type or "").lower() in HTML_TYPES and not source.is_cut:
                when = date.isoformat().replace("+00:00", "Z") if date else None
                yield {"url": record.headers.get("WARC-Target-URI"), "date": when, "page": page}
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: cannot be read as WARC ({(str(error).splitlines() or ['damaged'])[0]})") from None
    if source.num_bytes and not num_records:
        raise UserError(f"{where}: it has no WARC record")
    if source.is_cut:
        raise cut


class _Tail:
    """A stream for fastwarc, which knows how it ended: fastwarc takes a record that is cut short for a whole one."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream, self.num_bytes, self._tail, self._is_ended = stream, 0, b"", False

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(READ_BYTES if size < 0 else size)
        self._is_ended |= not data
        self.num_bytes += len(data)
        self._tail = (self._tail + data[-4:])[-4:]
        return data

    def tell(self) -> int:
        return self.num_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    @property
    def is_cut(self) -> bool:
        """Whether the stream has ended without the two empty lines that end each record."""
        return self._is_ended and self.num_bytes > 0 and self._tail != RECORD_END
