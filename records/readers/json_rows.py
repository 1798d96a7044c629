"""JSON as rows: lines of objects, arrays, and what the two fast parsers disagree about.

A row is decoded by msgspec, and by Python where msgspec refuses it (NaN, lone surrogates). So the values are always
those of Python: whole numbers of any size, the last of two equal keys.
"""

import codecs
import json
import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from gristmill.records.errors import UserError
from gristmill.records.readers.streams import CHUNK_BYTES, ByteStream

logger = logging.getLogger(__name__)

DECODE = msgspec.json.Decoder().decode
DECODE_ROW = msgspec.json.Decoder(dict).decode
SPACES = " \t\n\r"


def json_row(text: str | bytes) -> dict[str, Any]:
    """The object in a JSON text. Raises ValueError for any other text, also for one that is nested too deeply."""
    try:
        value = DECODE(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def json_rows(texts: list[bytes]) -> list[dict[str, Any]]:
    """The objects in JSON texts. Raises ValueError as `json_row` does."""
    try:
        return [DECODE_ROW(text) for text in texts]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return [json_row(text) for text in texts]


def dumped(row: Any) -> str:
    """A row as JSON text; values that JSON does not have become texts, bytes that are UTF-8 too."""
    return json.dumps(row, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        import base64

        return base64.b64encode(value).decode()


def elements_of(stream: ByteStream, where: str) -> Iterator[str]:
    """The JSON texts of the rows of a .json file, given as UTF-8.

    An array has its elements, objects one after another are rows each (JSON Lines under another name), and a single
    object is one row, unless its only value is a list of objects, which are the rows then. Raises UserError for a file
    that is not JSON to its end. Memory: the longest row; a single object as a whole.
    """
    texts = _Texts(stream, where)
    first = texts.peek()
    if first == "":
        return
    if first == "[":
        texts.at += 1
        yield from texts.array()
        return
    text, value = texts.next()
    if texts.peek() == "":
        inner = list(value.values()) if isinstance(value, dict) else []
        if len(inner) == 1 and _is_rows(inner[0]):
            yield from map(dumped, inner[0])
            return
        lists = [key for key, entry in value.items() if _is_rows(entry)] if isinstance(value, dict) else []
        if len(lists) == 1:
            _tell(where, lists[0])
    yield text
    while texts.peek() != "":
        yield texts.next()[0]


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


@lru_cache(maxsize=1000)  # a file is opened more than once
def _tell(where: str, key: str) -> None:
    logger.info(f"{where}: one row, an object; to read the rows of its list '{key}', make a file of that list alone")


class _Texts:
    """JSON texts one after another in a stream."""

    def __init__(self, stream: ByteStream, where: str) -> None:
        self._stream, self._where = stream, where
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder().raw_decode
        self.buffer, self.at, self._is_ended = "", 0, False
        self._num_before = 0  # characters before the buffer

    def _more(self) -> None:
        """Extend the buffer to twice its length at least, so that long rows take linear time."""
        pieces, size, wanted = [self.buffer[self.at :]], 0, max(CHUNK_BYTES, len(self.buffer) - self.at)
        while size < wanted and not self._is_ended:
            data = self._stream.read(CHUNK_BYTES)
            self._is_ended = not data
            pieces.append(self._decode(data, not data))
            size += len(data)
        self._num_before += self.at
        self.buffer, self.at = "".join(pieces), 0

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            while self.at < len(self.buffer):
                if (character := self.buffer[self.at]) not in SPACES:
                    return character
                self.at += 1
            if self._is_ended:
                return ""
            self._more()

    def next(self) -> tuple[str, Any]:
        """(text, value) of the JSON text that starts here."""
        while True:
            try:
                value, end = self._scan(self.buffer, self.at)
                # A number at the end of the buffer may go on.
                if end < len(self.buffer) or self._is_ended or isinstance(value, dict | list | str):
                    text = self.buffer[self.at : end]
                    self.at = end
                    return text, value
            except RecursionError:
                raise self._fault("nested too deeply") from None
            except ValueError as error:
                if self._is_ended:
                    raise self._fault(getattr(error, "msg", str(error)), getattr(error, "pos", self.at)) from None
            self._more()

    def array(self) -> Iterator[str]:
        """The elements of the array that has begun."""
        if self.peek() == "]":
            self.at += 1
        else:
            while True:
                yield self.next()[0]
                character = self.peek()
                self.at += 1
                if character == "]":
                    break
                if character != ",":
                    raise self._fault(
                        "the array is not closed" if character == "" else "',' or ']' is missing", self.at - 1
                    )
                self.peek()
        if self.peek() != "":
            raise self._fault("there is more after the array")

    def _fault(self, reason: str, at: int | None = None) -> UserError:
        place = self._num_before + (self.at if at is None else at)
        return UserError(f"{self._where}: not valid JSON at character {place:,} ({reason}); correct the file")
