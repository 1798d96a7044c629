"""A put to S3 whose bytes travel before its turn: the last byte is held back until the put may take effect.

A store cannot complete an object that lacks a byte, so what a reader or another driver sees is one ordinary if-absent
put, which takes effect in its turn and takes one round trip then. A put that is given up, or whose process dies, leaves
nothing behind. Multipart uploads would leave parts, and their conditional completion is not one step everywhere: with
SeaweedFS 4.48 several of 8 simultaneous completions won in a third of the races; of held puts always one.
"""

import io
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

HOLD_S = 15.0  # AWS closes a connection on which nothing is sent for 20 s; other stores wait longer
AT_ONCE_BYTES = 1 << 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 3600.0

_SENDING = threading.local()  # the body of the request that this thread sends


class HeldBody(io.RawIOBase):
    """The body of a put. While it is sent, `read` waits before the last byte until `turn` is set.

    It can be read without waiting before that: clients compute digests of a body first. `read` raises OSError after
    `HOLD_S` seconds, and when `give_up` has been called; `is_dropped` then tells that the body, not the store, ended
    the request.
    """

    def __init__(self, data: bytes, turn: threading.Event) -> None:
        self._data, self._turn = memoryview(data), turn
        self._position = 0
        self.is_sending = self.is_dropped = self.has_expired = False
        self.is_whole = False  # whether the last byte may have reached the store

    def __len__(self) -> int:
        return len(self._data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence] + offset
        return self._position

    def give_up(self) -> None:
        """Let the request fail: its next `read` raises OSError."""
        self.is_dropped = True
        self._turn.set()

    def read(self, size: int | None = -1) -> bytes:
        stop = len(self._data) if size is None or size < 0 else min(self._position + size, len(self._data))
        if self.is_sending and self._position < stop:
            last = len(self._data) - 1
            if self._position < last:
                stop = min(stop, last)
            else:
                self.has_expired = not self._turn.wait(HOLD_S)
                self.is_dropped |= self.has_expired
            if self.is_dropped:
                raise OSError("the put was given up")
            self.is_whole |= stop == len(self._data)
        block = self._data[self._position : stop].tobytes()
        self._position = stop
        return block


def mark_sending(request: Any = None, **_: Any) -> None:
    """A hook of boto3 that runs when a request has been signed and is sent next, in the thread of its caller."""
    body = getattr(_SENDING, "body", None)
    if body is not None:
        body.is_sending = True
        if request is not None and len(body) <= AT_ONCE_BYTES:
            # To ask first whether a body is welcome costs a round trip, and a second where a store does not answer.
            request.headers.pop("Expect", None)


class Holding:
    """Whether puts may be held back. A store that serves few connections at once would wait for a held put while the
    put whose turn it is waits for the store: after a hold that has expired, puts are not held for some time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paused_until, self._pause_s = 0.0, FIRST_PAUSE_S

    @property
    def is_allowed(self) -> bool:
        return time.monotonic() >= self._paused_until

    def succeeded(self) -> None:
        with self._lock:
            self._pause_s = FIRST_PAUSE_S

    def expired(self, where: str) -> None:
        with self._lock:
            if not self.is_allowed:
                return  # another hold has expired at the same time
            pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._paused_until = time.monotonic() + pause_s
        logger.info(f"{where}: waited {HOLD_S:.0f} s for its turn; shards are put one by one for {pause_s:.0f} s")


class Dropped(Exception):
    """The request was ended by its own body: the store is not in trouble."""


def send_held(body: HeldBody, send: Callable[[], Any]) -> None:
    """Send a request with this body, by `send`. Raises Dropped when the body has ended it, else what `send` raises."""
    _SENDING.body = body
    try:
        send()
    except Exception:
        if body.is_dropped:
            raise Dropped from None
        raise
    finally:
        _SENDING.body = None
