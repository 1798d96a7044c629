"""A seekable file over an object that is read by byte ranges; the caller fetches the ranges."""

import io
from collections.abc import Callable
from typing import Any

MIN_AHEAD, MAX_AHEAD = 128 << 10, 8 << 20  # bytes
Fetch = Callable[[int, int], bytes]  # (start, stop) -> the bytes between


class RangeFile(io.RawIOBase):
    """Caches the object's tail, which holds the footer of a Parquet file, and the last range fetched.

    A read that continues the last one reads further ahead each time, so that sequential reading takes few requests.
    Not thread-safe; `pyarrow.PythonFile` locks.
    """

    def __init__(self, fetch: Fetch, size: int, tail: bytes) -> None:
        self._fetch, self._size = fetch, size
        self._tail, self._tail_start = tail, size - len(tail)
        self._cached, self._cached_start = b"", 0
        self._ahead = MIN_AHEAD
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only at the end; the whole rest when `size` is negative or None."""
        if self.closed:
            raise ValueError("read of a closed file")
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        pieces = []
        while self._position < stop:
            piece = self._piece(self._position, stop)
            pieces.append(piece)
            self._position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, target: Any) -> int:
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def _piece(self, start: int, stop: int) -> bytes:
        """The bytes from `start` that one buffer or one request provides."""
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : stop - self._tail_start]
        cached_stop = self._cached_start + len(self._cached)
        if self._cached_start <= start < cached_stop:
            return self._cached[start - self._cached_start : stop - self._cached_start]
        self._ahead = min(self._ahead * 2, MAX_AHEAD) if start == cached_stop else MIN_AHEAD
        fetch_stop = min(max(stop, start + self._ahead), self._tail_start)
        data = self._fetch(start, fetch_stop)
        if len(data) != fetch_stop - start:
            raise OSError(f"requested {fetch_stop - start} bytes from {start}, got {len(data)}")
        self._cached, self._cached_start = data, start
        return data if fetch_stop <= stop else data[: stop - start]
