"""Where objects lie: a local folder or an S3 bucket, behind one small interface.

A put is atomic: a reader sees the whole object or none. `if_absent` puts are the commit of the project and raise
Conflict when the object is already there. S3 settings are the standard AWS ones (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION, profiles), so any S3-compatible store works.
"""

import errno
import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gristmill.records.errors import Conflict, UserError
from gristmill.records.processes import is_dead, this_process
from gristmill.records.shipped import shipped_path

TEMP_PREFIX = ".tmp-"
OLD_S = 3600.0  # a put that nobody can vouch for, and that has not grown for so long, is a leftover
FULL = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "no space left in your quota",
    errno.EFBIG: "larger than files may be here (ulimit -f)",
}


@dataclass(frozen=True)
class Entry:
    """One object: its name relative to the store (with "/") and its size in bytes."""

    name: str
    size: int


class Store(ABC):
    """Objects by name under one root. Pickles without its counts."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.errors: Counter[str] = Counter()  # failed requests by kind: "503", "timeout", "connection", "403", "full"
        self._errors_lock = threading.Lock()

    def count(self, kind: str) -> None:
        """Note one failed request."""
        with self._errors_lock:
            self.errors[kind] += 1

    def give_up(self) -> None:  # noqa: B027 - only a remote store has something to give up
        """From now on nothing is tried twice: somebody waits for this process to end."""

    def sweep(self) -> int:
        """Remove what killed puts have left; returns how many. Puts under way, of any process, are left alone."""
        return 0

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Objects whose name starts with `prefix`, in order of their names; unfinished puts are never listed."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The whole object. Raises FileNotFoundError."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """A seekable file over the object, for Parquet footers and columns. Raises FileNotFoundError."""

    @abstractmethod
    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write the object whole. Raises Conflict when `if_absent` and it is there."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object; nothing happens when it is not there."""

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def check(self, write: bool) -> None:
        """Raise UserError when the store cannot be reached (or written, with `write`)."""

    def read_if_there(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def path(self, name: str) -> str:
        """The full address of an object, for people."""
        return f"{self.uri.rstrip('/')}/{name}"

    def clear(self) -> None:
        """Remove every object; what nobody else writes to."""
        for entry in list(self.list()):
            self.delete(entry.name)


class LocalStore(Store):
    """A folder. A put writes a temporary file, syncs it and links (if absent) or renames it into place."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().absolute()
        super().__init__(str(self.root))

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[str]]:
        return type(self), (self.uri,)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        folder, _, start = prefix.rpartition("/")
        yield from sorted(self._walk(self.root / folder, folder, start), key=lambda e: e.name)

    def _walk(self, folder: Path, under: str, start: str) -> Iterator[Entry]:
        if not folder.is_dir():
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(start) or entry.name.startswith(TEMP_PREFIX):
                    continue
                name = f"{under}/{entry.name}" if under else entry.name
                if entry.is_dir():
                    yield from self._walk(folder / entry.name, name, "")
                else:
                    yield Entry(name, entry.stat().st_size)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def open(self, name: str) -> pa.NativeFile:
        return pa.OSFile(str(self.root / name), "rb")

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        final = self.root / name
        temp = self._temp(final.parent)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with open(temp, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if if_absent:
                os.link(temp, final)  # unlike rename, fails when the name is taken
            else:
                os.replace(temp, final)
        except FileExistsError:
            raise Conflict(f"{final} is already there: another run has written it") from None
        except OSError as error:
            if error.errno in FULL:
                self.count("full")
                told = FULL[error.errno]
                raise UserError(f"{final}: {told}; make room and run the same command again to go on") from error
            raise
        finally:
            temp.unlink(missing_ok=True)
        descriptor = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # without it a power cut may forget the name
        finally:
            os.close(descriptor)

    def _temp(self, folder: Path) -> Path:
        """A name for an unfinished put; it says whose it is, so that `sweep` knows when it is nobody's."""
        return folder / f"{TEMP_PREFIX}{secrets.token_hex(6)}-{this_process()}"

    def sweep(self) -> int:
        num_removed = 0
        for temp in self.root.rglob(f"{TEMP_PREFIX}*"):
            try:
                gone = is_dead(temp.name.removeprefix(TEMP_PREFIX).partition("-")[2])
                if gone or (gone is None and time.time() - temp.stat().st_mtime > OLD_S):
                    temp.unlink()
                    num_removed += 1
            except (FileNotFoundError, PermissionError):
                continue  # its put has ended, or it is another user's
        return num_removed

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def clear(self) -> None:
        super().clear()
        for folder in (*sorted((p for p in self.root.rglob("*") if p.is_dir()), reverse=True), self.root):
            with suppress(OSError):  # it is not there, or somebody has put something in
                folder.rmdir()

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def check(self, write: bool) -> None:
        if not write:
            if not self.root.is_dir():
                raise UserError(f"{self.uri}: no such folder")
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe, link = self._temp(self.root), self._temp(self.root)
            try:
                probe.touch()
                os.link(probe, link)  # what a commit is made of
            finally:
                probe.unlink(missing_ok=True)
                link.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.uri}: cannot write (or hard-link) here ({error.strerror}); mend that or choose another --out"
            ) from None


def open_store(uri: str) -> Store:
    """The store at a local path, `file://` path or `s3://bucket/prefix`. Reaches nothing yet."""
    scheme, sep, rest = uri.partition("://")
    if not sep:
        return LocalStore(uri)
    if scheme == "file":
        return LocalStore("/" + rest.lstrip("/"))
    if scheme == "s3":
        from gristmill.records.stores.s3 import S3Store  # boto3 takes a second to import

        return S3Store(uri)
    raise UserError(f"{uri}: only local paths and s3:// are known, not {scheme}://")


def split(uri: str) -> tuple[str, str]:
    """An object's address as (store address, name)."""
    head, _, name = uri.rstrip("/").rpartition("/")
    return head or (uri[: len(uri) - len(name)] or "."), name


def read_bytes(uri: str) -> bytes:
    """One object or file by its full address, or one that comes with the package (`package:NAME`). Raises UserError
    when it is not there."""
    root, name = split(shipped_path(uri))
    try:
        return open_store(root).read(name)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{uri}: no such file") from None
