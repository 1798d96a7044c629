"""A seekable file over an object that is read by ranges; the ranges are somebody else's business."""

import io
from collections.abc import Callable
from typing import Any

MIN_AHEAD, MAX_AHEAD = 128 << 10, 8 << 20  # bytes
Fetch = Callable[[int, int], bytes]  # (start, stop) -> the bytes between


class RangeFile(io.RawIOBase):
    """Holds the object's tail, which is where Parquet keeps its footer, and the last range fetched.

    A read that follows the one before fetches ever more ahead, so that reading in order is few requests. Not for two
    threads at once; `pyarrow.PythonFile` locks.
    """

    def __init__(self, fetch: Fetch, size: int, tail: bytes) -> None:
        self._fetch, self._size = fetch, size
        self._tail, self._tail_start = tail, size - len(tail)
        self._held, self._held_start = b"", 0
        self._ahead = MIN_AHEAD
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end; all that is left when it is negative or None."""
        if self.closed:
            raise ValueError("read of a closed file")
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        pieces = []
        while self._at < stop:
            piece = self._piece(self._at, stop)
            pieces.append(piece)
            self._at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, target: Any) -> int:
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def _piece(self, start: int, stop: int) -> bytes:
        """The bytes from `start` as far as one buffer or one request gives them."""
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : stop - self._tail_start]
        held_stop = self._held_start + len(self._held)
        if self._held_start <= start < held_stop:
            return self._held[start - self._held_start : stop - self._held_start]
        self._ahead = min(self._ahead * 2, MAX_AHEAD) if start == held_stop else MIN_AHEAD
        upto = min(max(stop, start + self._ahead), self._tail_start)
        data = self._fetch(start, upto)
        if len(data) != upto - start:
            raise OSError(f"asked for {upto - start} bytes from {start} on, got {len(data)}")
        self._held, self._held_start = data, start
        return data if upto <= stop else data[: stop - start]
