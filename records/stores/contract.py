"""The interface of a store: objects by name under one root.

A put is atomic: a reader sees the whole object or none. An `if_absent` put commits a lot: it raises Conflict when the
object exists.
"""

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pyarrow.fs


@dataclass(frozen=True)
class Entry:
    """One object: its name relative to the store (with "/") and its size in bytes."""

    name: str
    size: int


class Store(ABC):
    """Objects by name under one root. It pickles without its error counts."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.errors: Counter[str] = Counter()  # failed requests by kind: "503", "timeout", "connection", "403", "full"
        self._errors_lock = threading.Lock()

    def count(self, kind: str) -> None:
        """Count one failed request."""
        with self._errors_lock:
            self.errors[kind] += 1

    def give_up(self) -> None:  # noqa: B027 - a local store has no retries
        """Stop retrying: the process is ending."""

    def sweep(self) -> int:
        """Remove leftovers of killed puts; returns their number. Puts of living processes are left alone."""
        return 0

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Objects whose name starts with `prefix`, in the order of names, without unfinished puts."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The whole object. Raises FileNotFoundError."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """A seekable file over the object, e.g. for Parquet. Raises FileNotFoundError."""

    @abstractmethod
    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write the whole object. Raises Conflict with `if_absent` when the object exists."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object if it exists."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""

    @abstractmethod
    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """Arrow's own view of the store, for datasets that Arrow scans: (file system, path of the root in it)."""

    @abstractmethod
    def check(self, write: bool) -> None:
        """Raise UserError when the store cannot be reached (or written, with `write`)."""

    def check_layout(self, folders: Sequence[str], files: Sequence[str]) -> None:  # noqa: B027 - S3 has no folders
        """Raise UserError when the root or one of `folders` is a file, or one of `files` a folder. Writes nothing."""

    def leave(self) -> None:  # noqa: B027 - S3 has no folders
        """Remove the folders that `check` has made and that are still empty."""

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Check that the store can be written; if nothing has been written by the end of the block, `leave` it."""
        try:
            self.check(write=True)
            yield
        finally:
            self.leave()

    def read_if_there(self, name: str) -> bytes | None:
        """The whole object, None when it does not exist."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def path(self, name: str) -> str:
        """The full address of an object, for messages."""
        return f"{self.uri.rstrip('/')}/{name}"

    def clear(self) -> None:
        """Remove every object. Only for a store without other writers."""
        for entry in list(self.list()):
            self.delete(entry.name)
