"""A store in a local folder."""

import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from gristmill.records.errors import Changed, Conflict, UserError
from gristmill.records.processes import is_dead, this_process
from gristmill.records.stores.contract import Entry, PendingPut, Store, is_between, is_hidden
from gristmill.records.stores.probe import LEFTOVER_AGE_S, check_promises, sweep_probes
from gristmill.records.stores.renaming import rename_new

if TYPE_CHECKING:
    import pyarrow.fs

TEMP_PREFIX = ".tmp-"
CLOCK_TICK_S = 0.02  # the times of local files advance in steps of up to 10 ms
FULL = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "no space left in your quota",
    errno.EFBIG: "larger than files may be here (ulimit -f)",
}


class LocalStore(Store):
    """A folder. A put writes and syncs a temporary file, then renames it into place, if absent on request."""

    guards_reads: ClassVar[bool] = False  # a file can be written while it is open

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().absolute()
        super().__init__(str(self.root))
        self._new_folders: list[Path] = []  # that `check` has made, the outermost first

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[str]]:
        return type(self), (self.uri,)

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        from pyarrow import fs

        return fs.LocalFileSystem(), str(self.root)

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        folder, _, start = prefix.rpartition("/")
        entries = sorted(self._walk(self.root / folder, folder, start), key=lambda e: e.name)
        yield from (e for e in entries if not is_hidden(e.name, prefix) and is_between(e.name, after, until))

    def _walk(self, folder: Path, under: str, start: str) -> Iterator[Entry]:
        with _in_one_line(folder):
            if not folder.is_dir():
                return
            with os.scandir(folder) as scan:
                entries = list(scan)
            for entry in entries:
                if not entry.name.startswith(start) or entry.name.startswith(TEMP_PREFIX):
                    continue
                name = f"{under}/{entry.name}" if under else entry.name
                if (
                    entry.is_dir()
                    and entry.is_symlink()
                    and folder.resolve().is_relative_to(Path(entry.path).resolve())
                ):
                    raise UserError(f"{entry.path}: a symbolic link to a folder that holds it; remove the link")
                if entry.is_dir():
                    yield from self._walk(folder / entry.name, name, "")
                elif (state := _state(entry)) is not None:
                    yield Entry(name, state.st_size, _version(state))

    def version(self, name: str) -> str:
        with _in_one_line(self.root / name):
            state = os.stat(self.root / name)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return _version(state)

    def read(self, name: str, version: str | None = None) -> bytes:
        if version is None:
            with _in_one_line(self.root / name):
                return (self.root / name).read_bytes()
        with self.open(name, version) as file, _in_one_line(self.root / name):
            data = file.read()
        if self.version(name) != version:
            raise Changed(f"{self.root / name} changed during the read; run the command again")
        return data

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        path = self.root / name
        if version is not None and path.is_dir():
            raise Changed(f"{path} is a folder now")
        with _in_one_line(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))  # Arrow's words differ
            file = pa.OSFile(str(path), "rb")
            if version is None:
                return file
            state = os.stat(path)  # no older than the open file
        if _version(state) != version:
            file.close()
            raise Changed(f"{path} changed since it was listed; run the command again")
        # Two writes within a tick of the file system's clock bear the same time: wait until another write would show.
        age_s = time.time() - state.st_ctime
        if 0 <= age_s < CLOCK_TICK_S:
            time.sleep(CLOCK_TICK_S - age_s)
        return file

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        final = self.root / name
        with self._written(final):
            temp = self._write_temp(final, data)
            try:
                self._place(temp, final, if_absent)
            finally:
                temp.unlink(missing_ok=True)

    def begin_put(self, name: str, data: bytes) -> "RenamedPut":
        return RenamedPut(self, name, data)

    @contextmanager
    def _written(self, final: Path) -> Iterator[None]:
        """Errors of a write are raised as UserErrors that name the file, Conflict when it is there."""
        try:
            with _in_one_line(final, "written"):
                yield
        except FileExistsError:
            raise Conflict(f"{final} is already there: another run has written it") from None

    def _write_temp(self, final: Path, data: bytes) -> Path:
        """Write and sync a temporary file beside `final`."""
        temp = self._temp(final.parent)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with open(temp, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            temp.unlink(missing_ok=True)
            if error.errno in FULL:
                self.count("full")
                raise UserError(
                    f"{final}: {FULL[error.errno]}; make room and run the same command again to resume"
                ) from error
            raise
        return temp

    def _place(self, temp: Path, final: Path, if_absent: bool) -> None:
        """Give a temporary file its name."""
        if if_absent:
            rename_new(temp, final)
        else:
            os.replace(temp, final)
        descriptor = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # without it the name may be lost in a power cut
        finally:
            os.close(descriptor)

    def _temp(self, folder: Path) -> Path:
        """A name for an unfinished put. It names the process, so that `sweep` knows when the process is gone."""
        return folder / f"{TEMP_PREFIX}{secrets.token_hex(6)}-{this_process()}"

    def sweep(self, folders: Sequence[str] = ()) -> int:
        num_removed = sweep_probes(self)
        for temp in self.root.rglob(f"{TEMP_PREFIX}*"):
            try:
                gone = is_dead(temp.name.removeprefix(TEMP_PREFIX).partition("-")[2])
                # An unfinished put of an unknown process that has not grown for so long is a leftover.
                if gone or (gone is None and time.time() - temp.stat().st_mtime > LEFTOVER_AGE_S):
                    temp.unlink()
                    num_removed += 1
            except (FileNotFoundError, PermissionError):
                continue  # the put has ended, or the file is of another user
        return num_removed

    def delete(self, name: str) -> None:
        with _in_one_line(self.root / name, "deleted"):
            (self.root / name).unlink(missing_ok=True)

    def drop_folder(self, name: str) -> None:
        with suppress(OSError):  # missing or not empty
            (self.root / name).rmdir()

    def clear(self) -> None:
        super().clear()
        for folder in (*sorted((p for p in self.root.rglob("*") if p.is_dir()), reverse=True), self.root):
            with suppress(OSError):  # missing or not empty
                folder.rmdir()

    def exists(self, name: str) -> bool:
        with _in_one_line(self.root / name):
            return (self.root / name).exists()

    def check_layout(self, folders: Sequence[str], files: Sequence[str]) -> None:
        with _in_one_line(self.root):
            nearest = next(path for path in (self.root, *self.root.parents) if os.path.lexists(path))
            for path in (nearest, *(self.root / name for name in folders)):
                if os.path.lexists(path) and not path.is_dir():
                    raise UserError(f"{path} is not a folder; remove it or choose another address for the output")
            for path in (self.root / name for name in files):
                if path.is_dir():
                    raise UserError(f"{path} is a folder; remove it or choose another address for the output")

    def leave(self) -> None:
        while self._new_folders:
            with suppress(OSError):  # not empty
                self._new_folders.pop().rmdir()

    def check(self, write: bool) -> None:
        if not write:
            with _in_one_line(self.root):
                if not self.root.is_dir():
                    kind = "is not a folder" if self.root.exists() else "no such folder"
                    raise UserError(f"{self.uri}: {kind}")
            return
        try:
            absent = [path for path in (self.root, *self.root.parents) if not os.path.lexists(path)]
            self.root.mkdir(parents=True, exist_ok=True)
            self._new_folders += reversed(absent)
            check_promises(self, "exclusive renaming", "choose another --out")  # commits need them
        except OSError as error:
            raise UserError(
                f"{self.uri}: cannot write (or rename) here ({error.strerror}); fix that or choose another --out"
            ) from None


class RenamedPut(PendingPut):
    """`send` writes and syncs a temporary file, `complete` renames it."""

    def __init__(self, store: LocalStore, name: str, data: bytes) -> None:
        super().__init__(store, name, data)
        self._folder, self._final = store, store.root / name
        self._temp: Path | None = None
        self._is_over = False
        self._lock = threading.Lock()

    def send(self) -> None:
        with self._lock, suppress(UserError, OSError):
            if not self._is_over:
                with self._folder._written(self._final):
                    self._temp = self._folder._write_temp(self._final, self.data)

    def complete(self) -> None:
        with self._lock:
            self._is_over = True
            temp, self._temp = self._temp, None
        if temp is None:
            super().complete()
            return
        try:
            with self._folder._written(self._final):
                self._folder._place(temp, self._final, if_absent=True)
        except FileNotFoundError:  # the temporary file is gone: another driver took this process for dead
            super().complete()
        finally:
            temp.unlink(missing_ok=True)

    def drop(self) -> None:
        with self._lock, suppress(OSError):
            self._is_over = True
            if self._temp is not None:
                self._temp.unlink(missing_ok=True)


def _version(state: os.stat_result) -> str:
    """Size, times and inode. The change time shows a write whose modification time was set back."""
    return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}-{state.st_ino}"


def _state(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """The state of a file; None when it is gone. Raises UserError for a link whose target is missing."""
    try:
        return entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():
            raise UserError(
                f"{entry.path}: a symbolic link whose target is missing; restore the target or remove the link"
            ) from None
        return None  # deleted since the folder was read


@contextmanager
def _in_one_line(path: Path, verb: str = "read") -> Iterator[None]:
    """An error of the file system is raised as a UserError that names the file. "Absent" and "taken" stay errors of
    their own."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        why = error.strerror or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be {verb} ({why})") from error
