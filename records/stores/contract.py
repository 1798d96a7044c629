"""The interface of a store: objects by name under one root.

A put is atomic: a reader sees the whole object or none. An `if_absent` put commits a lot: it raises Conflict when the
object exists.
"""

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import pyarrow as pa

from gristmill.records.errors import Changed

if TYPE_CHECKING:
    import pyarrow.fs


PROBE_PREFIX = ".gristmill-probe-"  # of objects that `check` puts and deletes; only a listing of this prefix has them


class Entry(NamedTuple):
    """One object: its name relative to the store (with "/"), its size in bytes and its version."""

    name: str
    size: int
    version: str = ""  # as `Store.version` returns it


class PendingPut:
    """An if-absent put in two steps: `send` carries the bytes, unseen; `complete` makes them the object, in one step.

    One thread may `send` while another completes or drops. This class sends nothing ahead: `complete` puts the object.
    """

    def __init__(self, store: "Store", name: str, data: bytes) -> None:
        self.store, self.name, self.data = store, name, data

    def send(self) -> None:
        """Carry the bytes; may last until the put is completed or dropped. Raises nothing: `complete` tries again."""

    def complete(self) -> None:
        """Write the object. Raises as `Store.put` does, Conflict when it exists."""
        self.store.put(self.name, self.data, if_absent=True)

    def drop(self) -> None:
        """Give up a put that is not completed, and remove what it has left. Raises nothing."""


class Store(ABC):
    """Objects by name under one root. It pickles without its error counts."""

    guards_reads: ClassVar[bool]  # whether every read of an open file is of the version that `open` was given
    is_remote: ClassVar[bool] = False  # whether a request waits for a network, so that many at once are faster
    is_read_only: ClassVar[bool] = False  # whether it is a place for inputs alone

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

    @abstractmethod
    def sweep(self, folders: Sequence[str] = ()) -> int:
        """Remove leftovers of killed puts and checks, not those of living processes; returns their number.

        On S3: the parts of puts to `folders` that were begun an hour ago or more. Hold the lease of the output.
        """

    @abstractmethod
    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        """Objects whose name starts with `prefix`, in the order of names, without unfinished puts and probes.

        Only names greater than `after` and, if `until` is given, at most `until`.
        """

    def sizes(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[tuple[str, int]]:
        """(name, size) of the objects of `list`, which is faster where a store has many."""
        return ((entry.name, entry.size) for entry in self.list(prefix, after, until))

    @abstractmethod
    def version(self, name: str) -> str:
        """The present version of an object: equal versions mean equal bytes. It starts with the size.

        A version may differ for equal bytes, e.g. after `touch`. Raises FileNotFoundError, and IsADirectoryError for a
        folder.
        """

    @abstractmethod
    def read(self, name: str, version: str | None = None) -> bytes:
        """The whole object. Raises FileNotFoundError, and Changed when it is in another version than requested."""

    @abstractmethod
    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        """A seekable file over the object, e.g. for Parquet. Raises as `read` does."""

    @abstractmethod
    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write the whole object. Raises Conflict with `if_absent` when the object exists."""

    def sha256(self, name: str) -> str | None:
        """The SHA-256 of the content, where the store keeps it and proves it at each put; None elsewhere.

        Raises as `read` does.
        """
        return None

    def begin_put(self, name: str, data: bytes) -> PendingPut:
        """An if-absent put of the whole object whose bytes can travel before its turn. Does no I/O."""
        return PendingPut(self, name, data)

    def renew(self, name: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Put an object that is written again and again.

        In a bucket with versions the version that this store put before is deleted. Returns False where it cannot be
        deleted, so that old versions remain. Raises as `put` does.
        """
        self.put(name, data, if_absent=if_absent)
        return True

    def fetch(self, name: str, start: int, stop: int, version: str | None = None) -> bytes:
        """The bytes from `start` to `stop`, which lie in the object. Raises as `read` does."""
        with self.open(name, version) as file:
            file.seek(start)
            data: bytes = file.read(stop - start)
        if len(data) != stop - start:
            raise Changed(f"{self.path(name)} is shorter than it was; run the command again")
        return data

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object if it exists."""

    def drop_folder(self, name: str) -> None:  # noqa: B027 - S3 has no folders
        """Remove a folder that is empty."""

    def record(self, name: str, size: int, sha256: str) -> None:  # noqa: B027 - most stores show each put at once
        """Learn of an object that another process has put, for a store whose objects become visible together."""

    def publish(self, mark: str) -> None:
        """Complete a group of objects: remove the object `mark`, and show all others if they are not visible yet."""
        self.delete(mark)

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""

    @abstractmethod
    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """Arrow's own view of the store, for datasets that Arrow scans: (file system, path of the root in it)."""

    @abstractmethod
    def check(self, write: bool) -> None:
        """Raise UserError when the store cannot be reached.

        With `write`: also when it cannot be written, or when an if-absent put replaces an object there.
        """

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

    def read_small(self, name: str) -> bytes:
        """`read` of one of many small objects, which takes less CPU time where the store has a way to that."""
        return self.read(name)

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
        for entry in [*self.list(), *self.list(PROBE_PREFIX)]:
            self.delete(entry.name)


def is_hidden(name: str, prefix: str) -> bool:
    """Whether a listing of `prefix` leaves the object out: a probe that the prefix does not ask for."""
    return name.rpartition("/")[2].startswith(PROBE_PREFIX) and not prefix.startswith(PROBE_PREFIX)


def is_between(name: str, after: str, until: str | None) -> bool:
    """Whether a listing from `after` (exclusive) to `until` (inclusive) holds the name."""
    return name > after and (until is None or name <= until)
