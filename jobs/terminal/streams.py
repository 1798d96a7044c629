"""The standard streams of a command: a reader that is gone, or an encoding without a letter, ends no job."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # a pipe without a reader, a terminal that was closed, a closed stream


class SteadyStream:
    """A text stream that drops what can no longer be written. `failure` is the first error, None while all is well."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.failure: OSError | ValueError | None = None

    @property
    def is_incomplete(self) -> bool:
        """Whether text was lost that a reader still waits for, as on a full disk."""
        return isinstance(self.failure, OSError) and self.failure.errno not in GONE

    def write(self, text: str) -> int:
        if self.failure is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        """Send what the stream still holds to nowhere: the interpreter flushes it at its end, and would complain."""
        self.failure = error
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady_streams() -> Iterator[SteadyStream]:
    """stdout and stderr are SteadyStreams during the block; yields stdout."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # a process may be started without streams
        out, err = SteadyStream(before[0] or nowhere), SteadyStream(before[1] or nowhere)
        sys.stdout, sys.stderr = out, err
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before
