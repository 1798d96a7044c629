"""Changes of input files, as other programs make them, and whether the content is another afterwards."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def _other(data: bytes) -> bytes:
    """Bytes of the same length that differ in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)


def middle_byte(path: Path) -> None:
    """In place, with the old times set back."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    data = _other(path.read_bytes())
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=times)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_link(path: Path) -> None:
    target = path.with_name(f".{path.name}.target")
    target.write_bytes(_other(path.read_bytes()))
    path.unlink()
    path.symlink_to(target.name)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def copied_back(path: Path) -> None:
    """Another inode and other times, the same bytes."""
    copy = path.with_name(f".{path.name}.copy")
    shutil.copyfile(path, copy)
    os.replace(copy, path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "replaced at the same size": lambda path: _replace(path, _other(path.read_bytes())),
    "middle byte": middle_byte,
    "appended": lambda path: path.write_bytes(path.read_bytes() * 2),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": Path.unlink,
    "a folder": as_folder,
    "a link to others": as_link,
    "a link to nothing": dangling_link,
}
NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "touched": lambda path: os.utime(path, (1, 1)),
    "copied back": copied_back,
    "other rights": lambda path: path.chmod(0o600),
}
