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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from gristmill.records.errors import AbsentInput, UserError
from gristmill.records.output.manifest import NAME as MANIFEST
from gristmill.records.output.manifest import load as load_manifest
from gristmill.records.output.shard_names import KEPT, REJECTED, kept_lot, rejected_lot
from gristmill.records.readers.formats import ENDINGS, Format, format_of
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.opening import open_store, split

logger = logging.getLogger(__name__)

MAGIC = re.compile(r"[*?[]")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
RELEASE_SHARD = re.compile(r"train-\d{5,}-of-\d{5,}\.parquet")
CARD = "README.md"
DOCUMENTS = {"readme", "license", "licence", "notice", "changelog", "contributing", "citation"}  # beside data, no rows
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "croissant.json"}
NUM_SHOWN = 3  # names for each reason, in the line of the log
RUN, RELEASE = "run", "release"
RUN_FOLDERS = (f"{KEPT}/", f"{REJECTED}/", "events/")


class DataFile(NamedTuple):
    """A file that is read. `partitions` are the columns that the names of its folders state: (name, text or null)."""

    store: Store
    entry: Entry
    format: Format
    partitions: tuple[tuple[str, str | None], ...] = ()
    owner: str | None = None  # RUN or RELEASE: what wrote it, so that its rows have columns of Gristmill

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
    store, names, kind = _listed(path, key)
    place = Place(path, is_folder=kind == "folder", is_glob=kind == "glob")
    if kind == "file":
        entry = next(names)
        if (file_format := format_of(entry.name)) is None:
            raise UserError(f"{key} {path}: no format has this ending; known are {ENDINGS}")
        place.files = [DataFile(store, entry, file_format)]
        return place
    _sort_out(
        place, store, list(names), _wants_hidden(path), (_is_kept, _is_rejected) if with_rejected else (_is_kept,)
    )
    if not place.files:
        place.log()
        raise AbsentInput(f"{key} {path}: it has no file to read; known endings are {ENDINGS}")
    _check_ended(place, key)
    return place


def is_place(path: str) -> bool:
    """Whether a local path, without the side of a split (`#train`), is a file or folder, or a glob that matches."""
    path = path.partition("#")[0]
    return os.path.exists(path) or (MAGIC.search(path) is not None and next(glob.iglob(path), None) is not None)


def _listed(path: str, key: str) -> tuple[Store, Iterator[Entry], str]:
    """(store, objects, "file", "folder" or "glob")."""
    if "://" in path and not path.startswith("file://"):
        return _listed_remote(path, key)
    local = os.path.expanduser(path.removeprefix("file://"))
    if os.path.isdir(local):
        store = open_store(local)
        return store, store.list(), "folder"
    if os.path.exists(local):
        root, name = os.path.split(local)
        store = open_store(root or ".")
        return store, iter([_entry(store, name)]), "file"
    root, pattern = _fixed(local)
    matches = sorted(m for m in glob.glob(local, recursive=True, include_hidden=True) if os.path.isfile(m))
    if not pattern or not matches:
        raise AbsentInput(f"{key} {path}: no such file or folder")
    store = open_store(root or ".")
    return store, (_entry(store, os.path.relpath(match, root or ".")) for match in matches), "glob"


def _listed_remote(path: str, key: str) -> tuple[Store, Iterator[Entry], str]:
    store = open_store(path)
    if entries := [entry for entry in store.list() if entry.name]:
        return store, iter(entries), "folder"
    root, name = split(path)
    parent = open_store(root)
    if entries := [entry for entry in parent.list(name) if entry.name == name]:
        return parent, iter(entries), "file"
    root, pattern = _fixed(path)
    if pattern:
        store, matches = open_store(root), re.compile(_expression(pattern)).fullmatch
        if entries := [entry for entry in store.list(MAGIC.split(pattern)[0]) if matches(entry.name)]:
            return store, iter(entries), "glob"
    raise AbsentInput(f"{key} {path}: no such object or prefix")


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


def _wants_hidden(path: str) -> bool:
    """Whether a glob names hidden files itself, as in `data/_*.jsonl`."""
    _, pattern = _fixed(path)
    return any(piece[:1] in ("_", ".") for piece in pattern.split("/"))


def _sort_out(
    place: Place, store: Store, entries: list[Entry], is_wild: bool, shards: Sequence[Callable[[str], bool]]
) -> None:
    """Part the entries into files and skipped ones; `shards` are what is read of a run, in this order."""
    names = {entry.name for entry in entries}
    runs = {name[: -len(MANIFEST)] for name in names if name.rpartition("/")[2] == MANIFEST}
    runs |= {name.rpartition(f"{KEPT}/")[0] for name in names if _is_kept(name)}
    runs = {
        folder for folder in runs if any(name[len(folder) :].startswith(RUN_FOLDERS) for name in _below(names, folder))
    }
    releases = {name[: -len(CARD)] for name in names if name.rpartition("/")[2] == CARD}
    releases = {
        folder for folder in releases if any(RELEASE_SHARD.fullmatch(n[len(folder) :]) for n in _below(names, folder))
    }
    has_data = any((f := format_of(name)) and f.kind not in ("text", "html") for name in names)
    for entry in entries:
        name, owner = entry.name, None
        reason = None if is_wild else _hidden(name)
        if (run := _owner(name, runs)) is not None:
            owner = RUN
            is_read = any(is_shard(name[len(run) :]) for is_shard in shards)
            reason = None if is_read else "of a run besides its kept rows"
        elif (release := _owner(name, releases)) is not None:
            owner = RELEASE
            reason = None if RELEASE_SHARD.fullmatch(name[len(release) :]) else "of a release besides its shards"
        file_format = format_of(name)
        base = name.rpartition("/")[2].lower()
        if reason is None and base in METADATA:
            reason = "metadata"
        if reason is None and file_format is None:
            reason = "with another ending"
        if (
            reason is None
            and has_data
            and file_format
            and file_format.kind == "text"
            and base.split(".")[0] in DOCUMENTS
        ):
            reason = "documentation beside data"
        if reason is None and file_format is not None:
            place.files.append(DataFile(store, entry, file_format, partitions_of(name), owner))
        else:
            place.skipped[name] = reason or ""


def _below(names: Iterable[str], folder: str) -> Iterator[str]:
    return (name for name in names if name.startswith(folder))


def _owner(name: str, folders: set[str]) -> str | None:
    """The outermost of `folders` that the name lies in."""
    if not folders:
        return None
    pieces = name.split("/")
    prefixes = ("/".join(pieces[:number]) + ("/" if number else "") for number in range(len(pieces)))
    return next((prefix for prefix in prefixes if prefix in folders), None)


def _is_kept(name: str) -> bool:
    """Whether the name, below the address of a run, is that of a kept shard."""
    return kept_lot(name) is not None


def _is_rejected(name: str) -> bool:
    return rejected_lot(name) is not None


def is_shard(name: str) -> bool:
    """Whether the name, below the address of a run, is that of a shard."""
    return _is_kept(name) or _is_rejected(name)


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


def _check_ended(place: Place, key: str) -> None:
    """Raise UserError for a run whose manifest says that it is going on: its rows are not all there."""
    seen: set[str] = set()
    for file in place.files:
        folder = file.name.rpartition(f"{KEPT}/")[0]
        if file.owner != RUN or folder in seen:
            continue
        seen.add(folder)
        store = open_store(file.store.path(folder)) if folder else file.store
        content = load_manifest(store)
        if content is not None and content.state == "running":
            raise UserError(f"{key} {store.uri}: the run is still going on (or was killed); run its command to the end")
