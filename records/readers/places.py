"""Which files of a place are read: of a file, a folder, a glob, the output of a run, or a release.

    place = find_files("corpus/", key="source.path")
    place.files    # the data files in the order of their names, with the columns that their folders state
    place.skipped  # every other file, with the reason

A place is relative to the working folder. Hidden names, names with an underscore and what lies below them are left out.
Of the output of a run only the kept rows are read, of a release only its shards.
"""

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import unquote

from gristmill.records.errors import AbsentInput, UserError
from gristmill.records.output.shard_names import REJECTED
from gristmill.records.readers import outputs
from gristmill.records.readers.formats import ENDINGS, Format, format_of
from gristmill.records.readers.outputs import RELEASE_SHARD, RUN, Outputs
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.opening import open_store, split

logger = logging.getLogger(__name__)

MAGIC = re.compile(r"[*?[]")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
DOCUMENTS = {"readme", "license", "licence", "notice", "changelog", "contributing", "citation"}  # beside data, no rows
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "croissant.json"}
NUM_SHOWN = 3  # names for each reason, in the line of the log


class DataFile(NamedTuple):
    """A file that is read. `partitions` are the columns that the names of its folders state: (name, text or null)."""

    store: Store
    entry: Entry
    format: Format
    partitions: tuple[tuple[str, str | None], ...] = ()
    owner: str | None = None  # outputs.RUN or RELEASE: what wrote it, so that its rows have columns of Gristmill

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def address(self) -> str:
        return self.store.path(self.entry.name)


@dataclass
class Place:
    """The files of an address."""

    path: str
    files: list[DataFile] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # reason by name
    is_folder: bool = False
    is_glob: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Number of skipped files by reason."""
        return dict(sorted(Counter(self.skipped.values()).items()))

    def log(self) -> None:
        """One line that names what is not read and why; none where all files are read."""
        if not self.skipped:
            return
        reasons: dict[str, list[str]] = {}
        for name, reason in self.skipped.items():
            reasons.setdefault(reason, []).append(name)
        words = []
        for reason, names in sorted(reasons.items()):
            shown = ", ".join(names[:NUM_SHOWN]) + (", ..." if len(names) > NUM_SHOWN else "")
            words.append(f"{len(names):,} {reason} ({shown})")
        logger.info(
            f"{self.path}: {len(self.files):,} files are read, {len(self.skipped):,} are not: {'; '.join(words)}"
        )


def find_files(path: str, key: str = "source.path", with_rejected: bool = False) -> Place:
    """The files of a file, folder or glob, local or in a bucket; `with_rejected`: also the rejected rows of a run.

    A path that exists is that file or folder, whatever characters it has. Raises UserError, with `key` as the name of
    the setting, when there is no file, and for a run that has not ended.
    """
    listing = _listed(path, key)
    place = Place(path, is_folder=listing.kind == "folder", is_glob=listing.kind == "glob")
    if listing.kind == "file" and format_of(listing.entries[0].name) is None:
        raise UserError(f"{key} {path}: no format has this ending; known are {ENDINGS}")
    names = [e.name for e in listing.entries if not listing.reason(e.name)]
    owners = Outputs(listing.store, names, [name for name in listing.marks if not listing.reason(name)])
    runs = _sort_out(place, listing, owners, {REJECTED} if with_rejected else set())
    owners.check_ended(owners.runs if place.is_folder else runs, key)
    if not place.files:
        place.log()
        raise AbsentInput(f"{key} {path}: it has no file to read; known endings are {ENDINGS}")
    return place


def is_place(path: str) -> bool:
    """Whether a local path, without the side of a split (`#train`), is a file or folder, or a glob that matches."""
    path = path.partition("#")[0]
    return os.path.exists(path) or (MAGIC.search(path) is not None and next(glob.iglob(path), None) is not None)


class _Listing(NamedTuple):
    """What is at a path."""

    store: Store
    entries: list[Entry]
    kind: Literal["file", "folder", "glob"]
    marks: list[str]  # names of manifests and cards beside the entries or above them
    pattern: str = ""  # of a glob, below the root of the store

    def reason(self, name: str) -> str | None:
        """Why a name is left out: it is hidden, and the path does not name hidden files itself."""
        if self.kind == "file" or any(piece[:1] in ("_", ".") for piece in self.pattern.split("/")):
            return None
        return _hidden(name)


def _listed(path: str, key: str) -> _Listing:
    """The objects at a path. Raises UserError where there are none."""
    if "://" in path and not path.startswith("file://"):
        return _listed_remote(path, key)
    local = os.path.expanduser(path.removeprefix("file://"))
    if os.path.isdir(local):
        store = open_store(local)
        entries = list(store.list())
        return _Listing(store, entries, "folder", _marks(entries))
    if os.path.exists(local):
        root, name = os.path.split(local)
        return _file(open_store(root or "."), name)
    root, pattern = _fixed(local)
    matches = sorted(m for m in glob.glob(local, recursive=True, include_hidden=True) if os.path.isfile(m))
    if not pattern or not matches:
        raise AbsentInput(f"{key} {path}: no such file or folder")
    store = open_store(root or ".")
    entries = [_entry(store, os.path.relpath(match, root or ".")) for match in matches]
    marks = [name for name in outputs.mark_names(e.name for e in entries) if store.exists(name)]
    return _Listing(store, entries, "glob", marks, pattern)


def _listed_remote(path: str, key: str) -> _Listing:
    store = open_store(path)
    if entries := [entry for entry in store.list() if entry.name]:
        return _Listing(store, entries, "folder", _marks(entries))
    root, name = split(path)
    parent = open_store(root)
    if entries := [entry for entry in parent.list(name) if entry.name == name]:
        return _file(parent, name, entries)
    root, pattern = _fixed(path)
    if pattern:
        store, matches, prefix = open_store(root), re.compile(_expression(pattern)).fullmatch, MAGIC.split(pattern)[0]
        listed = list(store.list(prefix))
        if entries := [entry for entry in listed if matches(entry.name)]:
            near = [name for name in outputs.MARKS if not name.startswith(prefix) and store.exists(name)]
            return _Listing(store, entries, "glob", [*near, *_marks(listed)], pattern)
    raise AbsentInput(f"{key} {path}: no such object or prefix")


def _file(store: Store, name: str, entries: list[Entry] | None = None) -> _Listing:
    is_of_release = RELEASE_SHARD.fullmatch(name) is not None and store.exists(outputs.CARD)
    return _Listing(store, entries or [_entry(store, name)], "file", [outputs.CARD] if is_of_release else [])


def _marks(entries: Collection[Entry]) -> list[str]:
    return [entry.name for entry in entries if entry.name.rpartition("/")[2] in outputs.MARKS]


def _fixed(path: str) -> tuple[str, str]:
    """(the folder above the first wildcard, the pattern below it); the pattern is "" without a wildcard."""
    wild = MAGIC.search(path)
    if wild is None:
        return path, ""
    at = path.rfind("/", 0, wild.start()) + 1
    return path[: max(at - 1, 1)] if at else "", path[at:]


def _expression(pattern: str) -> str:
    """The regular expression of a glob: `*` and `?` stop at "/", `**/` is any number of folders."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]{1,99}\])", pattern)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        wild.get(piece)
        or (re.sub(r"^\[!", "[^", piece) if piece.startswith("[") and len(piece) > 2 else re.escape(piece))
        for piece in pieces
    )


def _entry(store: Store, name: str) -> Entry:
    version = store.version(name)
    return Entry(name, int(version.partition("-")[0]), version)


def _sort_out(place: Place, listing: _Listing, owners: Outputs, folders: set[str]) -> list[str]:
    """Part the entries into files and skipped ones; `folders` are those of runs that are read besides kept/.

    Returns the runs whose files are read.
    """
    runs, folders = dict[str, None](), {*folders, *listing.pattern.split("/")}
    is_file = listing.kind == "file"
    has_data = any((f := format_of(e.name)) and f.kind not in ("text", "html") for e in listing.entries)
    for entry in listing.entries:
        name, file_format = entry.name, format_of(entry.name)
        reason = listing.reason(name)
        owner = None if reason else owners.owner(name)
        if reason is None and not is_file:
            reason = (owner.reason(folders) if owner else None) or _reason_of_name(name, has_data)
        if reason is not None or file_format is None:
            place.skipped[name] = reason or ""
            continue
        partitions = () if is_file else partitions_of(name)
        place.files.append(DataFile(listing.store, entry, file_format, partitions, owner.kind if owner else None))
        if owner and owner.kind == RUN:
            runs[owner.folder] = None
    return list(runs)


def _reason_of_name(name: str, has_data: bool) -> str | None:
    """Why a file is left out by its name, which is not hidden. has_data: whether there are files with columns."""
    base, file_format = name.rpartition("/")[2].lower(), format_of(name)
    if base in METADATA:
        return "metadata"
    if file_format is None:
        return "with another ending"
    if has_data and file_format.kind == "text" and base.split(".")[0] in DOCUMENTS:
        return "documentation beside data"
    return None


def _hidden(name: str) -> str | None:
    """Why a name is left out: a hidden folder or file on its way, or one with an underscore, such as _SUCCESS."""
    for piece in name.split("/"):
        if piece.startswith("."):
            return "hidden"
        if piece.startswith("_") and "=" not in piece:
            return "with an underscore"
    return None


def partitions_of(name: str) -> tuple[tuple[str, str | None], ...]:
    """The columns that the folders of a name state, as Hive writes them: `lang=de/part-0.parquet`."""
    columns: dict[str, str | None] = {}
    for piece in name.split("/")[:-1]:
        column, sep, value = piece.partition("=")
        if sep and column:
            columns[unquote(column)] = None if value == HIVE_NULL else unquote(value)
    return tuple(columns.items())
