"""Where objects lie: a local folder or an S3 bucket, behind one small interface.

A put is atomic: a reader sees the whole object or none. `if_absent` puts are the commit of the project and raise
Conflict when the object is already there. S3 settings are the standard AWS ones (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION, profiles), so any S3-compatible store works.
"""

import errno
import os
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from records.errors import Conflict, UserError

TEMP_PREFIX = ".tmp-"


@dataclass(frozen=True)
class Entry:
    """One object: its name relative to the store (with "/") and its size in bytes."""

    name: str
    size: int


class Store(ABC):
    """Objects by name under one root."""

    uri: str
    errors: Counter[str] = Counter()  # requests that failed, by kind; those that were tried again count too

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


class LocalStore(Store):
    """A folder. A put writes a temporary file, syncs it and links (if absent) or renames it into place."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().absolute()
        self.uri = str(self.root)

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
        final.parent.mkdir(parents=True, exist_ok=True)
        temp = final.parent / f"{TEMP_PREFIX}{final.name}-{secrets.token_hex(6)}"
        try:
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
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"no space left for {final}: free some and run the same command again") from error
            raise
        finally:
            temp.unlink(missing_ok=True)
        descriptor = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # without it a power cut may forget the name
        finally:
            os.close(descriptor)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def check(self, write: bool) -> None:
        if not write:
            if not self.root.is_dir():
                raise UserError(f"{self.uri}: no such folder")
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f"{TEMP_PREFIX}probe-{secrets.token_hex(4)}"
            probe.touch()
            os.link(probe, f"{probe}-link")  # what a commit is made of
            os.unlink(f"{probe}-link")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"{self.uri}: cannot write (or hard-link) here ({error.strerror}); choose another --out"
            ) from None


def open_store(uri: str) -> Store:
    """The store at a local path, `file://` path or `s3://bucket/prefix`. Reaches nothing yet."""
    scheme, sep, rest = uri.partition("://")
    if not sep:
        return LocalStore(uri)
    if scheme == "file":
        return LocalStore("/" + rest.lstrip("/"))
    if scheme == "s3":
        from records.s3 import S3Store  # boto3 takes a second to import

        return S3Store(uri)
    raise UserError(f"{uri}: only local paths and s3:// are known, not {scheme}://")


def split(uri: str) -> tuple[str, str]:
    """An object's address as (store address, name)."""
    head, _, name = uri.rstrip("/").rpartition("/")
    return head or (uri[: len(uri) - len(name)] or "."), name


def read_bytes(uri: str) -> bytes:
    """One object or file by its full address. Raises UserError when it is not there."""
    root, name = split(uri)
    try:
        return open_store(root).read(name)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{uri}: no such file") from None
