"""The bytes of a data file as they are read: decompressed, and as UTF-8 whatever its encoding.

A damaged or truncated file, and bytes that are not of the encoding, raise UserError with the address of the file. No
row is lost and no character is replaced.
"""

import codecs
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

from gristmill.records.errors import KeyFault, UserError
from gristmill.records.stores.contract import Store

CHUNK_BYTES = 1 << 18  # that are read at a time: they stay in the cache of a core
REMOTE_BYTES = 8 << 20  # of a request to a remote store
SAMPLE_BYTES = 1 << 16  # that the encoding is guessed from
MAX_ZEROS = 0.2  # share of zero bytes at the start of a text; more are UTF-16 or UTF-32
MARKS = (  # byte-order marks, the longer ones first: that of UTF-32 begins like that of UTF-16
    *((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF8, "utf-8")),
    *((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
)


class ByteStream(Protocol):
    """Bytes in order."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""


def buffered(file: pa.NativeFile, store: Store) -> ByteStream:
    """An open file to be read in order from where it is, in few requests."""
    stream: ByteStream = pa.BufferedInputStream(file, REMOTE_BYTES) if store.is_remote else file
    return stream


def decompressed(file: Any, compression: str | None, where: str) -> ByteStream:
    """The bytes of an open file without its compression; all members of gzip and all frames of zstd.

    `where` is its address. Reading raises UserError where the file is damaged or ends too early.
    """
    if compression is None:
        stream: ByteStream = file
        return stream
    if compression == "xz":
        return _Checked(lzma.LZMAFile(file), where)
    native = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, "r")
    return _Checked(pa.CompressedInputStream(native, compression), where)


class _Checked:
    """A stream whose errors name the file."""

    def __init__(self, stream: Any, where: str) -> None:
        self._stream, self._where = stream, where

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._stream.read(size) if size >= 0 else self._stream.read()
        except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
            if isinstance(error, UserError):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self._where}: damaged or cut short ({reason}); fetch or write it again") from None
        return data


class Utf8:
    """The text of a stream as UTF-8, without its byte-order mark.

    encoding: of the stream, unless a byte-order mark states it; None: UTF-8. Raises UserError for bytes that are not of
    it. `num_mark` is the length of the mark, and `is_plain` says whether the bytes of the stream are those of the text.
    """

    def __init__(self, stream: ByteStream, encoding: str | None, where: str) -> None:
        self._stream, self._where, self._declared = stream, where, encoding
        self._first = stream.read(CHUNK_BYTES)
        mark, self.encoding = mark_of(self._first) or (b"", codecs.lookup(encoding or "utf-8").name)
        self.num_mark = len(mark)
        self._first = self._first[len(mark) :]
        self.is_plain = self.encoding in ("utf-8", "ascii")
        self._at = len(mark)  # of the next byte to decode
        self._decoder = codecs.getincrementaldecoder(self.encoding)()
        zeros = self._first[:SAMPLE_BYTES].count(0)
        if self.is_plain and zeros > MAX_ZEROS * len(self._first[:SAMPLE_BYTES]):
            raise encoding_error(where, "it has zero bytes", self._first[:SAMPLE_BYTES])

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """The next bytes, about `size`; b"" at the end."""
        while True:
            data, self._first = self._first or self._stream.read(size), b""
            if self.is_plain and data.isascii() and not self._decoder.getstate()[0]:
                self._at += len(data)
                return data
            try:
                text = self._decoder.decode(data, not data)
            except UnicodeError as error:
                raise self._fault(data, error) from None
            self._at += len(data)
            if not data:
                return text.encode("utf-8", "surrogatepass") if not self.is_plain else b""
            if self.is_plain:
                return data
            if text:
                return text.encode()

    def _fault(self, data: bytes, error: UnicodeError) -> UserError:
        rest, _ = self._decoder.getstate()
        buffer = getattr(error, "object", rest + data)
        start = getattr(error, "start", 0)
        byte = f"byte {self._at - (len(buffer) - len(data)) + start:,} is not {self.encoding}"
        if self._declared or self.num_mark:
            return UserError(f"{self._where}: {byte}; correct the file, or the key encoding")
        return encoding_error(self._where, byte, buffer[max(0, start - SAMPLE_BYTES // 2) : start + SAMPLE_BYTES // 2])


def encoding_error(where: str, fault: str, sample: bytes) -> KeyFault:
    """The error of a file that is not UTF-8, with the encoding that its bytes look like."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    likely = best.encoding.replace("_", "-") if best else "latin-1"
    likely = "latin-1" if likely in ("utf-8", "ascii") else likely
    fault = f"{where}: {fault}, and looks like {likely}"
    return KeyFault(fault, f'set encoding = "{likely}"', "convert the file to UTF-8")


def mark_of(first: bytes) -> tuple[bytes, str] | None:
    """(byte-order mark, encoding) at the start of a file, if there is one."""
    return next(((mark, encoding) for mark, encoding in MARKS if first.startswith(mark)), None)


def line_blocks(stream: ByteStream) -> Iterator[list[bytes]]:
    """All lines of a stream without their ends, blank ones too, in lists. Linear in the length of the lines."""
    pieces = list[bytes]()  # of a line that may be many chunks long
    while chunk := stream.read(CHUNK_BYTES):
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        if others:
            rest = others.pop()
            yield [b"".join(pieces) if len(pieces) > 1 else first, *others]
            pieces = [rest]
    if line := b"".join(pieces):
        yield [line]


def lines_of(stream: ByteStream, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(first byte, line) of the lines that are not blank; `offset` is the place of the first byte of the stream."""
    at = offset
    for lines in line_blocks(stream):
        for line in lines:
            if line and not line.isspace():
                yield at, line
            at += len(line) + 1


def lines_between(file: Any, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """(first byte, line) of the lines of a seekable file of UTF-8 that start in [start, stop) and are not blank."""
    at = max(start - 1, 0)  # the byte before shows whether a line starts at `start`
    file.seek(at)
    if start == 0 and (mark := mark_of(file.read(4))) is not None:
        at = len(mark[0])
    file.seek(at)
    for first, line in lines_of(file, at):
        if first >= stop:
            return
        if first >= start:  # or it starts before, and is of the range before
            yield first, line


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Errors of Arrow and of the system in the block are raised as UserErrors with the address of the file."""
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except IsADirectoryError:
        raise UserError(f"{where}: it is a folder") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{where}: cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]})") from None
